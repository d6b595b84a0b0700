"""The fixed parts of an exported C file."""

from __future__ import annotations

HEAD = """\
/* {name}, a VGG network, exported by vggnet.
 *
 *     int predict(const uint8_t pixels[{pixels}], float probabilities[{classes}]);
 *
 * takes an image of {shape} pixels (channels, rows, columns) and returns the number of the most
 * probable class. It needs {ram} KiB of memory for its values, which are static: two calls must
 * not run at the same time. Standard C99, without other files; link with -lm.
 */

#include <math.h>
#include <stdint.h>

typedef {kind} weight;

int predict(const uint8_t pixels[{pixels}], float probabilities[{classes}]);

extern const char *const class_names[{classes}];
const char *const class_names[{classes}] = {{{names}}};

static float a[{a}], b[{b}];
"""

_CONVOLVE = """\
/* Convolution with a border of zeros and ReLU; if pool is 2, the largest of each 2 x 2 window. */
static void convolve(const float *in, int channels, int side, int kernel, int pool,
                     const weight *weights, const float *scales, const float *biases,
                     int outputs, float *out)
{
    const int margin = kernel / 2;
    for (int output = 0; output < outputs; output++) {
        const weight *filter = weights + (long)output * channels * kernel * kernel;
        for (int place = 0; place < (side / pool) * (side / pool); place++) {
            float most = 0.0f;
            for (int corner = 0; corner < pool * pool; corner++) {
                const int y = place / (side / pool) * pool + corner / pool - margin;
                const int x = place % (side / pool) * pool + corner % pool - margin;
                const int top = y < 0 ? -y : 0, left = x < 0 ? -x : 0;
                const int bottom = y + kernel > side ? side - y : kernel;
                const int right = x + kernel > side ? side - x : kernel;
                float sum = 0.0f;
                for (int channel = 0; channel < channels; channel++)
                    for (int row = top; row < bottom; row++) {
                        const float *from = in + (long)(channel * side + y + row) * side + x;
                        const weight *by = filter + (channel * kernel + row) * kernel;
                        for (int column = left; column < right; column++)
                            sum += (float)by[column] * from[column];
                    }
                sum = sum * scales[output] + biases[output];
                if (sum > most)
                    most = sum;
            }
            *out++ = most;
        }
    }
}
"""

_NORMALIZE = """\
/* Local response normalization across five channels. */
static void normalize(const float *in, int channels, int side, float *out)
{
    const long size = (long)side * side;
    for (int channel = 0; channel < channels; channel++)
        for (long at = 0; at < size; at++) {
            float sum = 0.0f;
            for (int near = channel - 2; near <= channel + 2; near++)
                if (near >= 0 && near < channels)
                    sum += in[near * size + at] * in[near * size + at];
            out[channel * size + at] =
                in[channel * size + at] / powf(2.0f + 1e-4f * sum / 5.0f, 0.75f);
        }
}
"""

_POOL = """\
/* The largest of each 2 x 2 window; side is that of the result. */
static void pool(const float *in, int channels, int side, float *out)
{
    for (int row = 0; row < channels * side; row++)
        for (int column = 0; column < side; column++) {
            const float *from = in + 4L * row * side + 2 * column;
            float most = from[0];
            if (from[1] > most)
                most = from[1];
            if (from[2 * side] > most)
                most = from[2 * side];
            if (from[2 * side + 1] > most)
                most = from[2 * side + 1];
            *out++ = most;
        }
}
"""

_CONNECT = """\
/* A fully connected layer. */
static void connect(const float *in, int inputs, int relu, const weight *weights,
                    const float *scales, const float *biases, int outputs, float *out)
{
    for (int output = 0; output < outputs; output++) {
        float sum = 0.0f;
        for (int at = 0; at < inputs; at++)
            sum += (float)weights[(long)output * inputs + at] * in[at];
        sum = sum * scales[output] + biases[output];
        out[output] = relu && sum < 0.0f ? 0.0f : sum;
    }
}
"""

LAYERS = {"convolve": _CONVOLVE, "normalize": _NORMALIZE, "pool": _POOL, "connect": _CONNECT}
"""Functions by name; a file has those that it calls."""

PREDICT = """\
int predict(const uint8_t pixels[{pixels}], float probabilities[{classes}])
{{
    static const float mean[{channels}] = {{{mean}}}, std[{channels}] = {{{std}}};
    for (int channel = 0; channel < {channels}; channel++)
        for (int y = 0; y < {side}; y++)
            for (int x = 0; x < {side}; x++) {{
                const int row = y - {top}, column = x - {left};
                const int inside = row >= 0 && row < {height} && column >= 0 && column < {width};
                const int pixel =
                    inside ? pixels[(channel * {height} + row) * {width} + column] : 0;
                a[(channel * {side} + y) * {side} + x] =
                    ((float)pixel / 255.0f - mean[channel]) / std[channel];
            }}
{calls}
    int best = 0;
    for (int at = 1; at < {classes}; at++)
        if ({last}[at] > {last}[best])
            best = at;
    float sum = 0.0f;
    for (int at = 0; at < {classes}; at++) {{
        /* Calibrated: with a scale of 1 and no curvature, this is softmax. */
        const float distance = {last}[best] - {last}[at];
        probabilities[at] = expf(-distance * ({scale} + {curvature} * distance));
        sum += probabilities[at];
    }}
    for (int at = 0; at < {classes}; at++)
        probabilities[at] /= sum;
    return best;
}}"""

MAIN = """\
#include <stdint.h>
#include <stdio.h>

int predict(const uint8_t pixels[{pixels}], float probabilities[{classes}]);

int main(void)
{{
    static uint8_t pixels[{pixels}];
    static float probabilities[{classes}];
    while (fread(pixels, 1, {pixels}, stdin) == {pixels}) {{
        int best = predict(pixels, probabilities);
        for (int at = 0; at < {classes}; at++)
            if (probabilities[at] > probabilities[best])
                return 1;
        fwrite(probabilities, sizeof(float), {classes}, stdout);
    }}
    return 0;
}}
"""
