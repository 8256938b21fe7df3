// Peaks of the network's map. A peak is undecided (1), then kept (2) or suppressed (3); decisions once taken are right in any
// order of threads, because they rest on decided neighbours only: the result is that of the greedy rule.

// Whether pixel a is preferred to b: greater, or equal and earlier in raster order.
__device__ bool preferred(float a, int place_a, float b, int place_b) { return a > b || (a == b && place_a < place_b); }

extern "C" __global__ void local_maxima(const float* map, int* state, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS];
    int r = i / pitch, c = i % pitch;
    float v = map[i];
    bool top = r < rows && c < cols && (double)v > P[P_FLOOR];
    for (int k = -1; top && k <= 1; ++k)
        for (int l = -1; l <= 1; ++l) {
            int y = r + k, x = c + l, at = y * pitch + x;
            if ((k || l) && y >= 0 && x >= 0 && y < rows && x < cols && preferred(map[at], at, v, i)) top = false;
        }
    state[i] = top ? 1 : 0;
}

// One peak against the preferred ones closer than `radius`: 2 when all of them are suppressed, 3 when one is kept.
__device__ int decide(const float* map, const volatile int* state, const double* P, int i) {
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS];
    double radius = P[P_RADIUS];
    if (!(radius > 1.0)) return 2;
    int reach = (int)ceil(radius), r = i / pitch, c = i % pitch, answer = 2;
    for (int y = r > reach ? r - reach : 0; y <= r + reach && y < rows; ++y)
        for (int x = c > reach ? c - reach : 0; x <= c + reach && x < cols; ++x) {
            int at = y * pitch + x, other = state[at];
            if (!other || at == i || (double)((y - r) * (y - r) + (x - c) * (x - c)) >= radius * radius) continue;
            if (!preferred(map[at], at, map[i], i)) continue;
            if (other == 2) return 3;
            if (other == 1) answer = 1;
        }
    return answer;
}

extern "C" __global__ void suppress(const float* map, int* state, int* undecided, const double* P, int count, int n) {
    int i = INDEX;
    if (i >= n || state[i] != 1) return;
    int answer = decide(map, state, P, i);
    if (answer != 1) state[i] = answer;
    else if (count) atomicAdd(undecided, 1);
}

// Long chains of peaks, each waiting for a better one, are rare: one thread ends them, and does nothing when there are none.
extern "C" __global__ void suppress_rest(const float* map, int* state, const int* undecided, const double* P, int size, int n) {
    if (INDEX >= n || *undecided == 0) return;
    for (bool waiting = true; waiting;) {
        waiting = false;
        for (int i = 0; i < size; ++i) {
            if (state[i] != 1) continue;
            int answer = decide(map, state, P, i);
            if (answer != 1) state[i] = answer;
            else waiting = true;
        }
    }
}

extern "C" __global__ void mark_kept(const int* state, int* mark, int n) {
    int i = INDEX;
    if (i < n) mark[i] = state[i] == 2;
}

// `rank` is the running sum of `mark`: kept peaks go to their rank, in raster order; S_FOUND may exceed the room.
extern "C" __global__ void list_peaks(
    const float* map, const int* mark, const int* rank, int* where, float* height, double* S, int room, int n) {
    int i = INDEX;
    if (i >= n) return;
    if (i == n - 1) S[S_FOUND] = rank[i];
    int k = rank[i] - 1;
    if (mark[i] && k < room) {
        where[k] = i;
        height[k] = map[i];
    }
}

__device__ double vertex(double before, double at, double after) {
    double curve = before + after - 2.0 * at;
    double shift = curve < 0.0 ? 0.5 * (before - after) / curve : 0.0;
    return shift < -0.5 ? -0.5 : (shift > 0.5 ? 0.5 : shift);
}

// A peak of the map in pixels of the network's input, by a parabola along each axis; at the border the pixel itself.
__device__ void place_peak(const float* map, const double* P, int r, int c, double* y, double* x) {
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS], i = r * pitch + c;
    double v = r, u = c, stride = P[P_STRIDE];
    if (r > 0 && r < rows - 1) v += vertex(map[i - pitch], map[i], map[i + pitch]);
    if (c > 0 && c < cols - 1) u += vertex(map[i - 1], map[i], map[i + 1]);
    *y = stride * v + 0.5 * (stride - 1.0);
    *x = stride * u + 0.5 * (stride - 1.0);
}
