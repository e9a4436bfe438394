"""What programs hold to write and read: producers and consumers. They speak to a `logstore.broker_api.BrokerApi` alone."""
