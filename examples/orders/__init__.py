"""The orders example: one service publishes, others read at their own pace, one of them dies."""
