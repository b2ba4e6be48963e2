/* Logarithms of the classes' probabilities. */
static void log_softmax(const float *in, int count, float *out)
{
    float largest = in[0], sum = 0;
    for (int i = 1; i < count; i++)
        largest = in[i] > largest ? in[i] : largest;
    for (int i = 0; i < count; i++)
        sum += expf(in[i] - largest);
    for (int i = 0; i < count; i++)
        out[i] = in[i] - largest - logf(sum);
}
