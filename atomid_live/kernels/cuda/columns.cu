// The frame's answer: columns that ended on one place merged, flags, nearest neighbours.

// Whether column a is preferred to b: better score, or equal and earlier.
__device__ bool better(const double* score, long long a, long long b) {
    return score[a] > score[b] || (score[a] == score[b] && a < b);
}

__device__ double least_distance(const double* P, const double* S) {
    return P[P_LEAST_PX] == P[P_LEAST_PX] ? P[P_LEAST_PX] : 1.3 * S[S_SIGMA];
}

// Candidates that were not chosen (0) take no part.
extern "C" __global__ void begin_merge(const int* chosen, int* state, const double* S, int n) {
    int k = INDEX;
    if (k < n) state[k] = k < (int)S[S_COUNT] && chosen[k] ? 1 : 0;
}

__device__ int settle(
    const double* table, const double* score, const volatile int* state, const long long* order, const int* begin, const int* end,
    const double* P, const double* S, int k) {
    const double* row = table + (long long)C_WIDTH * k;
    double least = least_distance(P, S), size = P[P_BIN_PX];
    int bin_rows = bin_count(P[P_ROWS], size), bin_cols = bin_count(P[P_COLS], size), reach = (int)ceil(least / size), answer = 2;
    int i0 = bin_of(row[C_Y], size, bin_rows), j0 = bin_of(row[C_X], size, bin_cols);
    for (int a = i0 > reach ? i0 - reach : 0; a <= i0 + reach && a < bin_rows; ++a)
        for (int b = j0 > reach ? j0 - reach : 0; b <= j0 + reach && b < bin_cols; ++b)
            for (int p = begin[a * bin_cols + b]; p < end[a * bin_cols + b]; ++p) {
                long long other = order[p];
                if (other == k || state[other] == 0 || state[other] == 3 || !better(score, other, k)) continue;
                const double* there = table + C_WIDTH * other;
                double dy = there[C_Y] - row[C_Y], dx = there[C_X] - row[C_X];
                if (dy * dy + dx * dx >= least * least) continue;
                if (state[other] == 2) return 3;
                answer = 1;
            }
    return answer;
}

extern "C" __global__ void merge(
    const double* table, const double* score, int* state, int* undecided, const long long* order, const int* begin, const int* end,
    const double* P, const double* S, int count, int n) {
    int k = INDEX;
    if (k >= n || state[k] != 1) return;
    int answer = settle(table, score, state, order, begin, end, P, S, k);
    if (answer != 1) state[k] = answer;
    else if (count) atomicAdd(undecided, 1);
}

extern "C" __global__ void merge_rest(
    const double* table, const double* score, int* state, const int* undecided, const long long* order, const int* begin,
    const int* end, const double* P, const double* S, int n) {
    if (INDEX >= n || *undecided == 0) return;
    for (bool waiting = true; waiting;) {
        waiting = false;
        for (int k = 0; k < (int)S[S_COUNT]; ++k) {
            if (state[k] != 1) continue;
            int answer = settle(table, score, state, order, begin, end, P, S, k);
            if (answer != 1) state[k] = answer;
            else waiting = true;
        }
    }
}

// A column beyond the border is none, though it may have silenced one: it goes after the merging.
extern "C" __global__ void drop_outside(const double* table, int* state, const double* S, int n) {
    int k = INDEX;
    if (k < n && k < (int)S[S_COUNT] && table[(long long)C_WIDTH * k + C_OK] < 0.0) state[k] = 3;
}

// Distance to the nearest kept column, in rings of bins until no further ring can hold a nearer one.
__device__ double nearest(
    const double* table, const int* state, const long long* order, const int* begin, const int* end, const double* P, int k) {
    const double* row = table + (long long)C_WIDTH * k;
    double size = P[P_BIN_PX], best = __longlong_as_double(0x7ff0000000000000LL);
    int bin_rows = bin_count(P[P_ROWS], size), bin_cols = bin_count(P[P_COLS], size);
    int i0 = bin_of(row[C_Y], size, bin_rows), j0 = bin_of(row[C_X], size, bin_cols);
    int rings = bin_rows > bin_cols ? bin_rows : bin_cols;
    for (int ring = 0; ring <= rings; ++ring) {
        double gap = (ring - 1) * size;
        if (gap > 0.0 && gap * gap > best) break;
        for (int a = i0 - ring; a <= i0 + ring; ++a) {
            if (a < 0 || a >= bin_rows) continue;
            bool side = a == i0 - ring || a == i0 + ring;
            for (int b = j0 - ring; b <= j0 + ring; b += side || ring == 0 ? 1 : 2 * ring) {
                if (b < 0 || b >= bin_cols) continue;
                for (int p = begin[a * bin_cols + b]; p < end[a * bin_cols + b]; ++p) {
                    long long other = order[p];
                    if (other == k || state[other] != 2) continue;
                    const double* there = table + C_WIDTH * other;
                    double dy = there[C_Y] - row[C_Y], dx = there[C_X] - row[C_X], square = dy * dy + dx * dx;
                    if (square < best) best = square;
                }
            }
        }
    }
    return sqrt(best);
}

__device__ bool clipped(const float* image, const double* P, double sigma, double y, double x) {
    double ceiling = P[P_CEILING];
    if (!(ceiling - ceiling == 0.0)) return false;
    int rows = (int)P[P_ROWS], cols = (int)P[P_COLS], half = (int)rint(0.7 * sigma);
    if (half < 1) half = 1;
    int r0 = (int)rint(y), c0 = (int)rint(x);
    r0 = r0 < 0 ? 0 : (r0 >= rows ? rows - 1 : r0);
    c0 = c0 < 0 ? 0 : (c0 >= cols ? cols - 1 : c0);
    for (int r = r0 > half ? r0 - half : 0; r <= r0 + half && r < rows; ++r)
        for (int c = c0 > half ? c0 - half : 0; c <= c0 + half && c < cols; ++c)
            if ((double)image[(long long)r * cols + c] >= ceiling) return true;
    return false;
}

// Bits of atomid_live/flags.py: EDGE 1, FIT_FAILED 2, CLIPPED 4, CROWDED 8.
extern "C" __global__ void describe(
    const float* image, const double* table, const double* score, const float* height, const int* state, const long long* order, const int* begin,
    const int* end, double* answer, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n || k >= (int)S[S_COUNT]) return;
    const double* row = table + (long long)C_WIDTH * k;
    double* out = answer + (long long)A_WIDTH * k;
    double sigma = S[S_SIGMA], distance = nearest(table, state, order, begin, end, P, k);
    bool ok = row[C_OK] > 0.0;
    int flags = (row[C_EDGE] > 0.0 ? 1 : 0) | (ok ? 0 : 2) | (distance < 3.0 * sigma ? 8 : 0);
    if (clipped(image, P, sigma, row[C_Y], row[C_X])) flags |= 4;
    out[A_Y] = row[C_Y];
    out[A_X] = row[C_X];
    out[A_SCORE] = score[k];
    out[A_VAR_Y] = row[C_VAR_Y];
    out[A_VAR_X] = row[C_VAR_X];
    out[A_AMPLITUDE] = row[C_AMPLITUDE];
    out[A_FLAGS] = flags;
    out[A_NEAREST] = distance;
    out[A_HEIGHT] = height[k];
    out[A_KEPT] = state[k] == 2 ? 1.0 : 0.0;
}
