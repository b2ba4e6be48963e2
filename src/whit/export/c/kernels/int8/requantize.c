/* A scaled sum as uint8: shifted right and clamped to 0..255. */
static inline int32_t requantize(int64_t sum, int shift)
{
    const uint64_t value = (uint64_t)(sum < 0 ? 0 : sum) >> shift;
    return value > 255 ? 255 : (int32_t)value;
}
