/* A scaled sum as a logit: shifted right, rounded toward zero. */
static inline int32_t logit_of(int64_t sum, int shift)
{
    return (int32_t)(sum < 0 ? -(-sum >> shift) : sum >> shift);
}
