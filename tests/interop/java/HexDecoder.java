import java.util.HexFormat;
import org.apache.kafka.tools.api.Decoder;

/** Lets DumpLogSegments print keys and values as hex: its string decoder loses bytes that are not UTF-8. */
public final class HexDecoder implements Decoder<String> {
    @Override
    public String fromBytes(byte[] bytes) {
        return "0x" + HexFormat.of().formatHex(bytes);
    }
}
