/* Unpack weights of $bits bits, stored from the lowest bits on, to int8 with 31 zeros appended. */
static void unpack_weights(const uint8_t *packed, int count, int8_t *out)
{
    unsigned buffer = 0;
    int bits = 0;
    for (int i = 0; i < count; i++) {
        for (; bits < $bits; bits += 8)
            buffer |= (unsigned)*packed++ << bits;
        out[i] = (int8_t)((int)(buffer & $mask) - $qmax);
        buffer >>= $bits;
        bits -= $bits;
    }
    for (int i = 0; i < 31; i++)
        out[count + i] = 0;
}
