// What the judge of candidates sees of each (detect/candidate_features.py, detect/judge.py): map, raw pixels, company.

#define NOT_KNOWN __longlong_as_double(0x7ff8000000000000LL)
#define FAR_AWAY __longlong_as_double(0x7ff0000000000000LL)

// Candidates are all peaks that there is room for, in raster order: place in the frame, and how much of the map's height is
// lost on average one pixel further up, down, left and right (at the border the pixel itself).
extern "C" __global__ void place_candidates(
    const float* map, const int* where, const float* height, double* start, double* sharpness, const double* P, double* S,
    int room, int n) {
    int k = INDEX;
    if (k >= n) return;
    int count = (int)S[S_FOUND] < room ? (int)S[S_FOUND] : room;
    if (k == 0) S[S_COUNT] = count;
    if (k >= count) return;
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS], i = where[k];
    int r = i / pitch, c = i % pitch;
    double y, x;
    place_peak(map, P, r, c, &y, &x);
    start[2 * k] = (y + 0.5) / P[P_FACTOR_Y] - 0.5;
    start[2 * k + 1] = (x + 0.5) / P[P_FACTOR_X] - 0.5;
    double beside = (double)map[r > 0 ? i - pitch : i] + map[r < rows - 1 ? i + pitch : i];
    beside += (double)map[c > 0 ? i - 1 : i] + map[c < cols - 1 ? i + 1 : i];
    sharpness[k] = 1.0 - beside / 4.0 / height[k];
}

// One linear step of the fit on the pixels, neighbours and all, as a row of `Fit`; not known where it is not determined.
extern "C" __global__ void fit_candidates(const float* image, const double* start, double* fit, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    double* out = fit + (long long)F_WIDTH * k;
    for (int f = 0; f < F_WIDTH; ++f) out[f] = NOT_KNOWN;
    if (k >= (int)S[S_COUNT]) return;
    double sigma = P[P_SIGMA], m[16], v[4];
    Window w(P, start[2 * k], start[2 * k + 1], sigma, first_half(sigma));
    int high = w.high() > 0 ? w.high() : 0, wide = w.wide() > 0 ? w.wide() : 0, pixels = high * wide;
    out[F_INSIDE] = (double)pixels / (w.side * w.side);
    if (pixels <= 8) return;
    int top = w.first_row(), left = w.first_col();
    float zero = image[(long long)(top + high / 2) * w.cols + left + wide / 2];
    gather(image, w, zero, m, v);
    if (!solve4(m, v)) return;
    double square = 0.0, steps = 0.0, above = 0.0, below = 0.0, west = 0.0, east = 0.0;
    float tall = (float)v[0], level = (float)v[1], bend_y = (float)v[2], bend_x = (float)v[3];
    for (int r = 0; r < high; ++r) {
        float plain = 0.0f, changed = 0.0f, line = 0.0f, before = 0.0f;
        for (int c = 0; c < wide; ++c) {
            float e[2];
            for (int back = 0; back < 2; ++back) {
                int row = top + r - (back && r > 0 ? 1 : 0);
                float h = w.up(row), u = w.aside(left + c), gy = expf(-0.5f * h * h), gx = expf(-0.5f * u * u);
                e[back] = image[(long long)row * w.cols + left + c] - zero - level - ((tall + bend_y * h) * gy + bend_x * gy * u) * gx;
            }
            plain += e[0] * e[0];
            line += e[0];
            if (c > 0) changed += (e[0] - before) * (e[0] - before);
            changed += (e[0] - e[1]) * (e[0] - e[1]);
            before = e[0];
            if (c == 0) west += e[0];
            if (c == wide - 1) east += e[0];
        }
        square += plain;
        steps += changed;
        if (r == 0) above += line;
        if (r == high - 1) below += line;
    }
    steps /= high * (wide - 1) + wide * (high - 1);
    double variance = square / (pixels - 4), moved = sqrt(v[2] * v[2] + v[3] * v[3]);
    out[F_HEIGHT] = v[0];
    out[F_LEVEL] = v[1] + zero;
    out[F_NOISE] = sqrt(variance);
    out[F_MISFIT] = steps > 0.0 ? 2.0 * variance / steps : 1.0;
    out[F_SHIFT] = v[0] > 0.0 && moved < v[0] ? moved / v[0] : 1.0;
    out[F_SLOPE] = sqrt(squared((below - above) / wide) + squared((east - west) / high));
}

// Band-passed contrast at each candidate over the noise of the whole.
extern "C" __global__ void significance(
    const float* map, const int* where, double* z, const float* narrow, const float* wide, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    z[k] = NOT_KNOWN;
    if (k >= (int)S[S_COUNT]) return;
    int map_pitch = (int)P[P_MAP_PITCH], i = where[k];
    double y, x;
    place_peak(map, P, i / map_pitch, i % map_pitch, &y, &x);
    int rows = (int)P[P_SMALL_ROWS], cols = (int)P[P_SMALL_COLS], a = (int)rint(y), b = (int)rint(x);
    a = a < 0 ? 0 : (a >= rows ? rows - 1 : a);
    b = b < 0 ? 0 : (b >= cols ? cols - 1 : b);
    int at = a * (int)P[P_PITCH] + b;
    z[k] = ((double)narrow[at] - (double)wide[at]) / S[S_NOISE];
}

__device__ float tallest_around(const float* map, int pitch, int rows, int cols, int r, int c) {
    float best = map[r * pitch + c];
    for (int y = r > 0 ? r - 1 : 0; y <= r + 1 && y < rows; ++y)
        for (int x = c > 0 ? c - 1 : 0; x <= c + 1 && x < cols; ++x) best = map[y * pitch + x] > best ? map[y * pitch + x] : best;
    return best;
}

// Mean of the map at the places to which the lattice's vectors take each candidate; not known without any on the map.
extern "C" __global__ void lattice_support(const float* map, const int* where, double* support, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    support[k] = NOT_KNOWN;
    if (k >= (int)S[S_COUNT]) return;
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS], i = where[k], count = 0;
    double y, x, sum = 0.0, stride = P[P_STRIDE];
    place_peak(map, P, i / pitch, i % pitch, &y, &x);
    int r = (int)rint((y - 0.5 * (stride - 1.0)) / stride), c = (int)rint((x - 0.5 * (stride - 1.0)) / stride);
    for (int sign = 1; sign >= -1; sign -= 2)
        for (int j = 0; j < (int)P[P_VECTORS]; ++j) {
            int a = r + sign * (int)P[P_VECTOR_YX + 2 * j], b = c + sign * (int)P[P_VECTOR_YX + 2 * j + 1];
            if (a < 0 || b < 0 || a >= rows || b >= cols) continue;
            sum += tallest_around(map, pitch, rows, cols, a, b);
            count += 1;
        }
    if (count) support[k] = sum / count;
}

// Bins whose first corner is the candidates' own, as the processor sorts them; `corner` is (lowest y, lowest x, highest y, highest x).
__device__ int company_bin(const double* corner, double size, double v, int axis) {
    int count = (int)((corner[2 + axis] - corner[axis]) / size) + 1, b = (int)((v - corner[axis]) / size);
    return b < count - 1 ? b : count - 1;
}

extern "C" __global__ void company_bins(const double* start, const double* corner, int* bin, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    double size = P[P_COMPANY_PX];
    int cols = (int)((corner[3] - corner[1]) / size) + 1;
    bool there = k < (int)S[S_COUNT];
    bin[k] = there ? company_bin(corner, size, start[2 * k], 0) * cols + company_bin(corner, size, start[2 * k + 1], 1) : 0x7fffffff;
}

__device__ double log_ratio(double part, double whole) {
    double ratio = part / (whole > 1e-30 ? whole : 1e-30);
    return log(ratio < 0.02 ? 0.02 : (ratio > 5.0 ? 5.0 : ratio));
}

// What a candidate's neighbours show: distance and height of the nearest brighter one, means over the nearest six,
// and distance of the nearest main column.
extern "C" __global__ void company(
    const double* start, const double* corner, const long long* order, const int* begin, const int* end, const double* relative,
    const double* logit, const double* amplitude, const int* chief, double* out, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n || k >= (int)S[S_COUNT]) return;
    double size = P[P_COMPANY_PX], sigma = P[P_SIGMA], best[6], least = FAR_AWAY, closest = FAR_AWAY;
    long long near[6], brighter = -1;
    int rows = (int)((corner[2] - corner[0]) / size) + 1, cols = (int)((corner[3] - corner[1]) / size) + 1, held = 0;
    int r0 = company_bin(corner, size, start[2 * k], 0), c0 = company_bin(corner, size, start[2 * k + 1], 1);
    for (int r = r0 > 2 ? r0 - 2 : 0; r <= r0 + 2 && r < rows; ++r)
        for (int c = c0 > 2 ? c0 - 2 : 0; c <= c0 + 2 && c < cols; ++c)
            for (int p = begin[r * cols + c]; p < end[r * cols + c]; ++p) {
                long long other = order[p];
                if (other == k) continue;
                double d = squared(start[2 * other] - start[2 * k]) + squared(start[2 * other + 1] - start[2 * k + 1]);
                if (d < closest && chief[other]) closest = d;
                if (d < least && relative[other] > relative[k]) {
                    least = d;
                    brighter = other;
                }
                if (held == 6 && d >= best[5]) continue;
                int place = held < 5 ? held : 5;
                for (; place > 0 && best[place - 1] > d; --place) {
                    best[place] = best[place - 1];
                    near[place] = near[place - 1];
                }
                best[place] = d;
                near[place] = other;
                held = held < 6 ? held + 1 : 6;
            }
    double apart = sqrt(least) / sigma, heights = 0.0, tall = 0.0, gaps = 0.0;
    for (int j = 0; j < held; ++j) {
        heights += logit[near[j]] / held;
        tall += amplitude[near[j]] / held;
        gaps += sqrt(best[j]) / held;
    }
    double* row = out + 6LL * k;
    row[0] = apart < FAR_SIGMAS ? apart : FAR_SIGMAS;
    row[1] = log_ratio(relative[k], brighter >= 0 ? relative[brighter] : relative[k]);
    row[2] = held ? heights : -7.0;
    row[3] = held ? tall : -4.0;
    closest = sqrt(closest) / sigma;
    row[5] = closest < FAR_SIGMAS ? closest : FAR_SIGMAS;
    row[4] = held && gaps / sigma < FAR_SIGMAS ? gaps / sigma : FAR_SIGMAS;
}
