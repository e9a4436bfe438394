import java.io.File;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;

/**
 * Reads segment files with Kafka's own record classes and prints one JSON object a record.
 * DumpLogSegments leaves out what this adds: header values, and whether a null is a null.
 */
public final class ReadRecords {
    public static void main(String[] paths) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String path : paths) {
            try (FileRecords file = FileRecords.open(new File(path), false)) {
                int end = 0;
                for (RecordBatch batch : file.batches()) {
                    batch.ensureValid();
                    end += batch.sizeInBytes();
                    for (Record record : batch) {
                        record.ensureValid();
                        print(out, path, batch, record);
                    }
                }
                if (end != file.sizeInBytes()) {
                    throw new IllegalStateException(
                        path + ": batches end at " + end + ", the file at " + file.sizeInBytes());
                }
            }
        }
        out.flush();
    }

    private static void print(PrintStream out, String path, RecordBatch batch, Record record) {
        StringBuilder line = new StringBuilder("{\"path\":\"").append(path).append('"');
        line.append(",\"offset\":").append(record.offset());
        line.append(",\"timestamp\":").append(record.timestamp());
        line.append(",\"codec\":\"").append(batch.compressionType().name).append('"');
        line.append(",\"control\":").append(batch.isControlBatch());
        line.append(",\"key\":").append(hex(record.key()));
        line.append(",\"value\":").append(hex(record.value()));
        line.append(",\"headers\":[");
        String separator = "";
        for (Header header : record.headers()) {
            byte[] value = header.value();
            line.append(separator).append('[');
            line.append(hex(ByteBuffer.wrap(header.key().getBytes(StandardCharsets.UTF_8)))).append(',');
            line.append(hex(value == null ? null : ByteBuffer.wrap(value))).append(']');
            separator = ",";
        }
        out.append(line.append("]}\n"));
    }

    private static String hex(ByteBuffer bytes) {
        if (bytes == null) {
            return "null";
        }
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return '"' + HexFormat.of().formatHex(copy) + '"';
    }
}
