"""Derive every constant of the CRC-32C code and print csrc/src/crc32c_constants.c.

    python3 csrc/tools/crc32c_constants.py > csrc/src/crc32c_constants.c

The C test suite checks each number again, by another way (tests/test_crc32c_constants.c).
Here a polynomial over GF(2) is an int whose bit i is the coefficient of x^i; `reflected` turns the
remainders into the bit order of the CRC.
"""

P = 0x11EDC6F41
P_DEGREE = 32
X_ORDER = 2**31 - 1  # P = (x + 1) * (primitive of degree 31), so x^(2^31 - 1) = 1


def remainder(value: int) -> int:
    while value.bit_length() > P_DEGREE:
        value ^= P << (value.bit_length() - 1 - P_DEGREE)
    return value


def product(a: int, b: int) -> int:
    total = 0
    while b:
        if b & 1:
            total ^= a
        a, b = remainder(a << 1), b >> 1
    return total


def x_to_the(exponent: int) -> int:
    """x^exponent mod P; the exponent may be negative, since x has an inverse."""
    exponent %= X_ORDER
    power, square = 1, 2
    while exponent:
        if exponent & 1:
            power = product(power, square)
        square, exponent = product(square, square), exponent >> 1
    return power


def reflected(value: int, bits: int = 32) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2)


def table(values: list[int], indent: str = "    ") -> str:
    words = [f"0x{value:08x}," for value in values]
    lines = [" ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
    return "\n".join(indent + line for line in lines)


def main() -> None:
    assert product(x_to_the(X_ORDER - 1), 2) == 1
    print("/* Written by tools/crc32c_constants.py, checked by tests/test_crc32c_constants.c. */")
    print('#include "crc32c_internal.h"\n')

    # The effect of byte b followed by k zero bytes: b as a remainder, times x^(8k + 8).
    print("const uint32_t ls_crc32c_slices[8][256] = {")
    for k in range(8):
        shift = x_to_the(8 * k + 8)
        # Bit 0 of a byte is its highest power, x^31 in a state of 32 bits.
        row = [reflected(product(reflected(byte), shift)) for byte in range(256)]
        print("    {\n" + table(row, " " * 8) + "\n    },")
    print("};\n")

    near = [reflected(x_to_the(64 * i - 33)) for i in range(256)]
    far = [reflected(x_to_the(64 * 256 * i - 33)) for i in range(256)]
    squares = [reflected(x_to_the(2**i)) for i in range(31)]
    print("const uint32_t ls_crc32c_near[256] = {\n" + table(near) + "\n};\n")
    print("const uint32_t ls_crc32c_far[256] = {\n" + table(far) + "\n};\n")
    print("const uint32_t ls_crc32c_squares[31] = {\n" + table(squares) + "\n};\n")
    for size in (16, 32, 64, 128):
        pair = [reflected(x_to_the(8 * size + 31)), reflected(x_to_the(8 * size - 33))]
        print(f"const uint64_t ls_crc32c_fold_{size}[2] = {{0x{pair[0]:08x}, 0x{pair[1]:08x}}};")


if __name__ == "__main__":
    main()
