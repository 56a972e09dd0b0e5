// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Payload: every byte is a function of its position and of the round, so that
 * a byte from another place, from an earlier round or from a reused page is
 * not what was expected.
 */
#include <string.h>

#include "t.h"

static u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static u64 word(u64 pos, u64 round)
{
	return mix((pos >> 3) ^ (round << 40));
}

u64 t_random(u64 *state)
{
	*state += 1;
	return mix(*state);
}

u8 t_pattern(u64 pos, u64 round)
{
	return word(pos, round) >> (8 * (pos & 7));
}

void t_fill_at(void *p, size_t len, u64 pos, u64 round)
{
	u8 *b = p;
	size_t i = 0;

	while (i < len) {
		if (!((pos + i) & 7) && len - i >= 8) {
			u64 w = word(pos + i, round);

			memcpy(b + i, &w, 8);
			i += 8;
		} else {
			b[i] = t_pattern(pos + i, round);
			i++;
		}
	}
}

void t_fill(void *p, size_t len, u64 round)
{
	t_fill_at(p, len, 0, round);
}

static size_t first_difference(const u8 *b, size_t len, u64 pos, u64 round)
{
	size_t i = 0;

	while (i < len) {
		if (!((pos + i) & 7) && len - i >= 8) {
			u64 w = word(pos + i, round);

			if (!memcmp(b + i, &w, 8)) {
				i += 8;
				continue;
			}
		}
		if (b[i] != t_pattern(pos + i, round))
			return i;
		i++;
	}
	return len;
}

static void say_which_round(u8 got, u64 pos, u64 round)
{
	if (round && got == t_pattern(pos, round - 1))
		t_diag("  (the byte of the round before)");
	else if (!got)
		t_diag("  (a zero)");
}

bool t_matches_at(const void *p, size_t len, u64 pos, u64 round)
{
	const u8 *b = p;
	size_t i = first_difference(b, len, pos, round);

	if (i == len)
		return true;
	t_diag("byte %zu of %zu (position %llu, round %llu): 0x%02x, expected 0x%02x",
	       i, len, (unsigned long long)(pos + i), (unsigned long long)round,
	       b[i], t_pattern(pos + i, round));
	say_which_round(b[i], pos + i, round);
	return false;
}

bool t_matches(const void *p, size_t len, u64 round)
{
	return t_matches_at(p, len, 0, round);
}

bool t_all_zero(const void *p, size_t len)
{
	const u8 *b = p;
	size_t i;

	for (i = 0; i < len; i++) {
		if (b[i]) {
			t_diag("byte %zu of %zu: 0x%02x, expected 0", i, len, b[i]);
			return false;
		}
	}
	return true;
}
