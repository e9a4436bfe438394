import logstore


def test_there_and_back(run, directory, tmp_path):
    first = run("backup", tmp_path / "backup")
    assert "4 partitions" in first.stderr
    with logstore.open(directory) as broker:
        broker.topic("plain").append(b"one more")
    second = run.json("backup", tmp_path / "backup")
    assert second[0]["copied_bytes"] < second[0]["size_bytes"]
    names = run("restore", tmp_path / "backup", "--list").stdout.splitlines()
    assert names[0] == first.stdout.strip()
    assert len(names) == 2
    result = run("-d", tmp_path / "new", "restore", tmp_path / "backup")
    assert "every byte verified" in result.stderr.replace("\n", " ")
    run("-d", tmp_path / "old", "restore", tmp_path / "backup", "plain", "--at", names[0])
    with logstore.open(tmp_path / "new", read_only=True) as broker:
        assert [record.value for record in broker.topic("plain").read()][-1] == b"one more"
        assert broker.topics() == ["orders", "plain"]
    with logstore.open(tmp_path / "old", read_only=True) as broker:
        assert len(list(broker.topic("plain").read())) == 100
        assert broker.topics() == ["plain"]
    assert "is not empty" in run("-d", tmp_path / "new", "restore", tmp_path / "backup", code=2).stderr
    assert "holds no backup" in run("-d", tmp_path / "x", "restore", tmp_path / "old", code=3).stderr
    assert "outside" in run("backup", directory / "inside", code=2).stderr
    assert "there is no topic nope" in run("backup", tmp_path / "backup", "nope", code=3).stderr


def test_damage_stops_a_backup(run, directory, tmp_path):
    path = min((directory / "plain-0").glob("*.log"))
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert "CRC does not match" in run("backup", tmp_path / "backup", code=6).stderr
    run("backup", tmp_path / "backup", "orders")
