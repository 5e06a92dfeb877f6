"""Breaks the engine's C in one place at a time and expects red tests.

    python tests/mutations_c.py [word ...]      those whose text contains a word; all without one

Every mutant is compiled into an engine of its own (see other_engine.py); the batteries
test_native_ops.py, test_native_programs.py and test_native_threads.py run on it. It takes some ten
seconds a mutant.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from other_engine import ROOT, build, environment, sources

#: (file, what stands there, what stands there instead)
MUTATIONS = [
    # cells
    (
        "cells",
        "float f = fptt_sigmoid(FPTT_GET_A(in[hidden + j]));",
        "float f = fptt_sigmoid(FPTT_GET_A(in[j]));",
    ),
    ("cells", "by_c * from * (f * (1.0f - f))", "by_c * g * (f * (1.0f - f))"),
    ("cells", "next[j] = FPTT_PUT_A(by_c * f);", "next[j] = FPTT_PUT_A(by_c);"),
    (
        "cells",
        "(1.0f - z) * candidate + z * FPTT_GET_A(before[j])",
        "z * candidate + (1.0f - z) * FPTT_GET_A(before[j])",
    ),
    ("cells", "FPTT_PUT_A(by_n * reset)", "FPTT_PUT_A(by_n)"),
    ("cells", "(FPTT_GET_A(before[j]) - candidate)", "(candidate - FPTT_GET_A(before[j]))"),
    ("cells", "(1.0f - value * value)", "(1.0f - value)"),
    # updates
    ("updates", "(alpha * (old - m) - lam)", "(alpha * (old - m))"),
    ("updates", "d = directed ? d : pulled;", "d = pulled;"),
    ("updates", "lam = lam - alpha * (new - m);", "lam = lam - alpha * (old - m);"),
    ("updates", "keep * m + beta * new - ratio * lam", "keep * m + beta * new"),
    ("updates", "FPTT_GET_P(lambda[i]) * pull", "FPTT_GET_P(lambda[i])"),
    ("updates", "rest2 * d * d", "rest2 * d"),
    ("updates", "FPTT_SQRT(moment2 / correction2)", "FPTT_SQRT(moment2)"),
    ("updates", "    d *= factor;\n", ""),
    ("updates", "new = old - lr * velocity;", "new = old - lr * d;"),
    (
        "updates",
        "size_t offset = run * at->stride + low;",
        "size_t offset = run * at->length + low;",
    ),
    ("updates", "      low += n;\n", "      low += n + (n == 256);\n"),
    ("updates", "- pull * FPTT_GET_P(lam[i])", "- FPTT_GET_P(lam[i])"),
    ("updates", "lanes[i % 16] += value * value;", "lanes[i % 16] = value * value;"),
    # products
    (
        "products",
        "product_tile(R, 1, cols - column, one",
        "product_tile(R, 1, cols - column - 1, one",
    ),
    ("products", "    if (bias && some != FPTT_LANES) first", "    if (0) first"),
    ("products", "      if (start.data && some != FPTT_LANES) {", "      if (0) {"),
    ("products", "  if (k < inner) {", "  if (k + 1 < inner) {"),
    ("products", "if (bias) sum +=", "if (bias && rows > 1) sum +="),
    ("products", "if (c + i >= columns) continue;", ""),
    ("products", "from > passed ? from - passed : 0", "0"),
    ("products", "to - passed < spans[s].rows ? to - passed : spans[s].rows", "spans[s].rows"),
    ("products", "if (p) p += low * p_stride + line;", "if (p) p += line;"),
    ("products", "if (before) sum += FPTT_GET_P(before[at + j]);", ""),
    ("products", "columns, from == 0);", "columns, 1);"),
    ("products", "last - done - rows : first + done", "last - done - 1 : first + done"),
    ("products", "  if (two.inner) product_rows", "  if (0) product_rows"),
    (
        "products",
        "gradient_tile(R, 1, width - done, spans, count, from, to, line, column + done",
        "gradient_tile(R, 1, width - done, spans, count, from, to, line, column",
    ),
    # losses
    ("losses", "FPTT_PUT_A(j == label ? part - share : part)", "FPTT_PUT_A(part)"),
    ("losses", "      clear(out, width);\n", ""),
    ("losses", "+ rate * part)", "+ part)"),
    ("losses", "!(per_part || fraction[r] == 1.0f)", "0"),
    (
        "losses",
        "out[j] = FPTT_PUT_A((part * weight - soft) * share);",
        "out[j] = FPTT_PUT_A((part * weight - soft));",
    ),
    # element by element
    ("elementwise", "FPTT_GET_A(value[j]) > 0.0f ?", "FPTT_GET_A(value[j]) >= 0.0f ?"),
    ("elementwise", "row + (uint32_t)r, step", "row, step"),
    ("elementwise", "step, random[1]}", "step, 0}"),
    ("elementwise", "words[j % 4] >= limit", "words[j % 4] > limit + 0x8000000u"),
    (
        "elementwise",
        "FPTT_PUT_P(FPTT_GET_P(to[j]) + FPTT_GET_A(grad[j]))",
        "FPTT_PUT_P(FPTT_GET_A(grad[j]))",
    ),
    # which rows
    (
        "engine",
        "segment[count++] = (fptt_segment){t, row, rows[t] - row};",
        "segment[count++] = (fptt_segment){steps - 1, row, rows[t] - row};",
    ),
    ("engine", "        if (rows[t] == row) continue;\n", ""),
    ("engine", "rows[steps - 1] == engine->batch && op", "op"),
    ("engine", " && op->kind != KIND_dropout) {", ") {"),
    ("engine", "op->mode == FPTT_WHOLE ? FPTT_LAST", "op->mode == FPTT_WHOLE ? FPTT_WHOLE"),
    (
        "engine",
        "const fptt_segment segment = {t, first, end - first};",
        "const fptt_segment segment = {0, first, end - first};",
    ),
    (
        "engine",
        "case FPTT_WHOLE: return at + segment->row * operand->row_bytes;",
        "case FPTT_WHOLE: return at;",
    ),
    ("engine", "l->block->turn > 0 ? i : l->high - 1 - (i - l->low)", "i"),
    # operations
    (
        "engine",
        "if (c->op->operand[w].transposed) {",
        "if (!c->op->operand[w].transposed) {",
    ),
    ("engine", "gradient(c, X, DY, START, DW, NULL,", "gradient(c, DY, X, START, DW, NULL,"),
    ("engine", "gradient_update(c, 1, 1, TILE)", "gradient_update(c, 1, 1, TILE - 1)"),
    ("engine", "c->frame->part & 1);", "1);"),
    ("engine", "(size_t)c->frame->part : 0;", "0 : 0;"),
    ("engine", "  counted *= width;\n", ""),
    ("engine", "start ? *start + total : total", "total"),
    (
        "engine",
        "    const size_t at = line * line_bytes;",
        "    const size_t at = line * 0 * line_bytes;",
    ),
    ("engine", "  to[0] = from[0];\n", ""),
    ("engine", "+ 1e-6f)", "+ 1e-2f)"),
    (
        "engine",
        "if (length == stride) length *= lines, lines = 1; /* no gaps",
        "if (length == stride) lines = 1; /* no gaps",
    ),
    ("engine", "(float)(1.0 / (1.0 - ATTRIBUTE(P)))", "1.0f"),
    # input and state in one product, or one after the other
    ("engine", "factors(c, s, X, W), factors(c, s, H, V)", "factors(c, s, X, W), no_factors"),
    (
        "engine",
        "affine(c, s, H, V, NULL, ROWS(Y), ROWS(Y)",
        "affine(c, s, H, V, NULL, ROWS(START), ROWS(Y)",
    ),
    # the first step of a part
    ("engine", "      if (ops[k].after_first && t == 0) continue;\n", ""),
    ("engine", "ops[k].after_first && t == 0", "ops[k].after_first"),
    ("engine", "ops[k].after_first && t == 0", "ops[k].after_first && i == 0"),
    # rounding at random
    ("engine", "fptt_rounding_key(noise[0], noise[1],", "fptt_rounding_key(noise[0], 0,"),
    ("engine", "noise[1], c->op->tensor, i)", "noise[1], c->op->tensor, 0)"),
    ("engine", "noise[1], c->op->tensor, i)", "noise[1], 0, i)"),
    ("engine", "c->op->first_element,", "0,"),
    ("engine", "at->transposed ? 1u : FPTT_ROW_DISTANCE,", "FPTT_ROW_DISTANCE,"),
    ("updates", "element + (uint32_t)i * by", "element + (uint32_t)i"),
    ("updates", "run * at->element_by_run + place * by", "run * at->element_by_run"),
    ("updates", "  if (rule->stochastic) {", "  if (0) {"),
    ("updates", "lambda[i] = FPTT_ROUND(lam, 1);", "lambda[i] = FPTT_ROUND(lam, 0);"),
    # threads
    (
        "engine",
        "size_t last = lines * (size_t)(number + 1) / (size_t)of;",
        "size_t last = lines * (size_t)(number + 1) / (size_t)of - (number + 1 < of);",
    ),
    (
        "engine",
        "size_t first = lines * (size_t)number / (size_t)of;",
        "size_t first = lines * (size_t)number / (size_t)of - (number > 0);",
    ),
    (
        "engine",
        "(int32_t)((int64_t)l->frame->rows[0] * (number + 1) / of);",
        "(int32_t)((int64_t)l->frame->rows[0] * (number + 1) / of) - (number + 1 < of);",
    ),
    (
        "engine",
        "int32_t end = last < l->frame->rows[t] ? last : l->frame->rows[t];",
        "int32_t end = last;",
    ),
    ("pool", "pool && pool->process == (int32_t)getpid() ?", "pool ?"),
    ("pool", "  atomic_store(&pool->busy, here - 1);\n", ""),
    ("pool", "  atomic_store(&pool->stop, 1);\n", ""),
    # the training loop
    (
        "drive",
        "(int64_t)part * batch->steps / batch->parts",
        "(int64_t)part * (batch->steps / batch->parts)",
    ),
    ("drive", "batch->lengths[rows] > step", "batch->lengths[rows] >= step"),
    ("drive", "(frame->begin + t) * batch->target_step_bytes", "t * batch->target_step_bytes"),
    ("drive", "(double)(frame->part + 1) / batch->parts", "(double)frame->part / batch->parts"),
    ("drive", "batch->lengths[r] < end ? batch->lengths[r] : end", "end"),
    (
        "drive",
        "        memcpy(moved, driver->moved_copy, (size_t)driver->moved_bytes);\n",
        "",
    ),
    ("drive", "return FPTT_STATE_NOT_FINITE;", "return FPTT_OK;"),
    ("drive", "if (engine->driver.cautious ||", "if (0 && engine->driver.cautious ||"),
    ("drive", "* rows < GRADIENT_LIMIT", "* rows < 1.0f / 0.0f"),
    ("drive", "    if (*part == 0) {", "    if (*part >= 0) {"),
    ("drive", "  fptt_run(engine, FPTT_CARRY, frame, -1);\n", ""),
    ("drive", "any |= is_target(driver, from);", "any = is_target(driver, from);"),
    ("drive", "(bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16", "bits >> 16"),
    # snapshots in flash: what is read
    ("flash", "0x1DB71064u", "0x1DB71065u"),
    ("flash", "a != b && a - b < 0x80000000u", "a > b"),
    ("flash", "w > CHUNK || ", ""),
    ("flash", " || (w & (w - 1))", ""),
    ("flash", "e % 32 || ", ""),
    ("flash", "e % w)", "0)"),
    ("flash", "flash->bytes % 2 || ", ""),
    ("flash", "half % e || ", ""),
    ("flash", " || half < header_bytes(flash))", ")"),
    ("flash", "&mark, 4)) mark = 0;", "&mark, 4)) mark = MARK;"),
    ("flash", "&mark, 4)) mark = 0;", "&mark, 4)) return;"),
    ("flash", "if (blank == 0xFFFFFFFFu) s->state", "if (0) s->state"),
    ("flash", "s->head[AT_MAGIC] == MAGIC && ", ""),
    ("flash", " && s->head[AT_CHECK] == crc32(0, s->head, 4 * AT_CHECK)", ""),
    ("flash", "mark == MARK ? FPTT_SLOT_COMPLETE : FPTT_SLOT_UNFINISHED", "FPTT_SLOT_COMPLETE"),
    ("flash", "mark == MARK ? FPTT_SLOT_COMPLETE : FPTT_SLOT_UNFINISHED", "FPTT_SLOT_UNFINISHED"),
    ("flash", "s->head[AT_VERSION] != VERSION || ", ""),
    ("flash", " || s->head[AT_IDENTITY] != identity)", ")"),
    ("flash", "  memset(s->head, 0, sizeof s->head);\n", ""),
    ("flash", "  if (left > flash->bytes / 2 - at) return 0;\n", ""),
    (
        "flash",
        "  return sum == head[AT_SUM];\n}\n\n/* The slot to be",
        "  return 1;\n}\n\n/* The slot to be",
    ),
    ("flash", "at, chunk, n)) return 0;", "at, chunk, n)) return 1;"),
    ("flash", "return s[1].state > s[0].state;", "return s[1].state < s[0].state;"),
    ("flash", "  if (s[0].state != s[1].state) return s[1].state > s[0].state;\n", ""),
    (
        "flash",
        "s[i].state < FPTT_SLOT_UNFINISHED) return i;",
        "s[i].state < FPTT_SLOT_COMPLETE) return i;",
    ),
    ("flash", "other->state == FPTT_SLOT_EMPTY || ", ""),
    ("flash", " || other->state == FPTT_SLOT_OTHER_PROGRAM) return FPTT_OK;", ") return FPTT_OK;"),
    ("flash", "other->head[AT_MAGIC] && !is_newer", "!is_newer"),
    ("flash", "!is_newer(other->head[AT_SEQUENCE], s[i].head[AT_SEQUENCE])", "1"),
    ("flash", "if (pieces[i].bytes > 0xFFFFFFFFu - *bytes) return 0;", ""),
    (
        "flash",
        "  return sum == head[AT_SUM];\n}\n\nfptt_status fptt_flash_restore",
        "  return 1;\n}\n\nfptt_status fptt_flash_restore",
    ),
    ("flash", "pieces[i].data, n)) return 0;", "pieces[i].data, n)) return 1;"),
    ("flash", "if (s[i].head[AT_KIND] != kind)", "if (0)"),
    ("flash", "!known || ", ""),
    ("flash", " || s[i].head[AT_BYTES] != bytes)", ")"),
    ("flash", "return touched ? FPTT_FLASH_READ_FAILED : status;", "return status;"),
    # ... and written
    ("flash", "room = CHUNK - at % CHUNK;", "room = CHUNK;"),
    ("flash", "        filled = 0, room = CHUNK;\n", "        filled = 0;\n"),
    ("flash", "at, chunk, filled)) return 0;", "at, chunk, filled)) return 1;"),
    ("flash", "  memset(chunk + filled, 0xFF, units - filled);\n", ""),
    ("flash", "return units == 0 || flash", "return flash"),
    ("flash", "at, chunk, units) == 0;", "at, chunk, units) != 9;"),
    ("flash", "at, chunk, units) == 0;", "at, chunk, filled) == 0;"),
    ("flash", "  memset(chunk, 0xFF, sizeof chunk);\n", "  memset(chunk, 0, sizeof chunk);\n"),
    ("flash", "at, chunk, up(flash, bytes))) return 0;", "at, chunk, up(flash, bytes))) return 1;"),
    ("flash", " && memcmp(chunk, words, bytes) == 0;", ";"),
    ("flash", "|| bytes > half - begin)", "|| bytes > half)"),
    ("flash", "kept ? 0 : half;", "kept ? half : 0;"),
    (
        "flash",
        "(!head[AT_MAGIC] || is_newer(other[AT_SEQUENCE], last))",
        "is_newer(other[AT_SEQUENCE], last)",
    ),
    ("flash", "    last = other[AT_SEQUENCE];\n", "    ;\n"),
    ("flash", "at < begin + bytes; at +=", "at < bytes; at +="),
    (
        "flash",
        "uint32_t at = 0; at < begin + bytes;",
        "uint32_t at = flash->erase_bytes; at < begin + bytes;",
    ),
    ("flash", "base + at)) return FPTT_FLASH_WRITE_FAILED;", "base + at)) break;"),
    (
        "flash",
        "!write_payload(flash, base + begin, pieces, count, &head[AT_SUM]) ||",
        "!write_payload(flash, base + begin, pieces, count, &head[AT_SUM]) &&",
    ),
    ("flash", "      !payload_fits(flash, base, head))\n", "      0)\n"),
    ("flash", "last + 1;", "last;"),
    (
        "flash",
        "  if (!write_words(flash, base, head, 4 * WORDS) ||\n"
        "      !write_words(flash, base + up(flash, 4 * WORDS), &mark, 4))",
        "  if (!write_words(flash, base + up(flash, 4 * WORDS), &mark, 4) ||\n"
        "      !write_words(flash, base, head, 4 * WORDS))",
    ),
    (
        "flash",
        "flash->erase(flash->context, half - newest) || flash->erase(flash->context, newest)",
        "flash->erase(flash->context, newest) || flash->erase(flash->context, half - newest)",
    ),
    ("flash", "  if (s[better(s)].state > FPTT_SLOT_EMPTY) return FPTT_FLASH_WRITE_FAILED;\n", ""),
    # the driver of exported models
    ("learner", "BITS_OF_INF) return stop(l, FPTT_LOSS_NOT_FINITE)", "BITS_OF_INF) return FPTT_OK"),
    ("learner", "if (l->loss > l->loss_limit)", "if (0)"),
    ("learner", "if (!update_is_safe(l))", "if (0)"),
    ("learner", "  model->accept(l->arena, at);\n", ""),
    (
        "learner",
        "  if (l->targets && l->learning) status = learn",
        "  if (l->targets) status = learn",
    ),
    ("learner", "    l->model->reset(l->arena, all_steps(l));\n", ""),
    ("learner", "if (model->input_is_token && bad_tokens(model, x))", "if (0)"),
    ("learner", "if (target && model->target_is_label && bad_labels(model, target))", "if (0)"),
    ("learner", "if (l->progress.position == 0) model->next", "if (0) model->next"),
    ("learner", "(l->progress.position + 1) % model->steps", "l->progress.position + 1"),
    ("learner", "    if (l->targets && l->learning) take_outputs(l, t);\n", ""),
    ("learner", "what == FPTT_SAVE_FULL && l->at.high > 0", "0"),
    ("learner", "  if (status == FPTT_FLASH_READ_FAILED) fptt_rollback(l);\n", ""),
    ("learner", "if (what == FPTT_SAVE_WEIGHTS) l->model->start(", "if (0) l->model->start("),
    ("learner", "bytes < model->arena_bytes", "bytes + 1 < model->arena_bytes"),
    ("learner", "(uintptr_t)arena % 16 != 0", "(uintptr_t)arena % 4 != 0"),
    ("learner", "  memset(l->arena, 0, l->model->arena_bytes);\n", ""),
    ("learner", "counted += target[r] >= 0;", "counted++;"),
]
#: of the kernels for processors that compute one number at a time; built with FPTT_FUSED
FUSED_MUTATIONS = [
    (
        "cells_fused",
        "fptt_sigmoid_fused(FPTT_GET_A(in_f[j]))",
        "fptt_sigmoid_fused(FPTT_GET_A(in_i[j]))",
    ),
    (
        "cells_fused",
        "fptt_fma(f, FPTT_GET_A(before[j]), i * g)",
        "fptt_fma(f, FPTT_GET_A(before[j]), i)",
    ),
    ("cells_fused", "FPTT_PUT_A(times_rest(by_o * squashed, o))", "FPTT_PUT_A(by_o * squashed)"),
    ("cells_fused", "FPTT_PUT_A(fptt_fma(-by_i, g, by_g))", "FPTT_PUT_A(times_rest(by_g, g))"),
    ("cells_fused", "kept = by_c * f;", "kept = by_c * i;"),
    (
        "cells_fused",
        "FPTT_GET_A(before[j]) - candidate, candidate)",
        "FPTT_GET_A(before[j]), candidate)",
    ),
    ("cells_fused", "times_rest(kept, z) * (", "kept * ("),
    ("cells_fused", "times_rest(by_q * q, reset)", "times_rest(by_n * q, reset)"),
    ("cells_fused", "fptt_fma(-value, value, 1.0f)", "(1.0f - value)"),
    ("updates", "g[i] - lam);", "g[i]);"),
    ("updates", "step.lr * step.factor;", "step.lr;"),
    ("updates", "!code && directed ? g[i] : pulled", "pulled"),
    ("updates", "pull * FPTT_GET_P(lambda[i]);", "FPTT_GET_P(lambda[i]);"),
    ("updates", "fptt_fma(-ratio, lam, new)", "fptt_fma(-ratio, lam, old)"),
    ("updates", "fptt_fma(-alpha, moved, lam)", "fptt_fma(-alpha, old - m, lam)"),
    ("updates", "fptt_fma(beta, new, keep * m)", "fptt_fma(beta, new, m)"),
    ("updates", "fptt_fma(-ratio, lam_new, halfway)", "fptt_fma(-ratio, lam, halfway)"),
    ("updates", "rule->beta == 0.5f", "rule->beta >= 0.5f"),
    ("updates", "rule->pull == 1.0f && !rule->directed", "rule->pull == 1.0f"),
    ("updates", "rule->pull == 1.0f && !rule->directed", "!rule->directed"),
    ("updates", "rule->wrapped && !rule->stochastic", "rule->wrapped"),
    ("updates", "code ? n & ~(size_t)7 : 0", "code ? n & ~(size_t)3 : 0"),
    ("updates", "gradient + start, at, start,", "gradient + start, at, 0,"),
]
#: what a mutant may do without being wrong
EQUIVALENT = {
    "c->frame->part & 1);",  # in which order lines are gone through changes no bit
    "        if (rows[t] == row) continue;\n",  # segments without rows
}


#: what the host's engine does not contain: file -> its tests, which compile it from FPTT_RUNTIME,
#: and which of them look at what it does
APART = {
    "flash": ("test_device_flash.py", "not compiles"),
    "learner": ("test_device_learner.py", "Test"),
}

#: where a file's mistakes show, where it is not in all of them
BATTERIES = {"drive": ("programs",), "pool": ("threads",)}


def mutated(text: str, old: str, new: str) -> str:
    """The text with one place changed."""
    assert text.count(old) == 1, f"{text.count(old)} times in the file: {old}"
    return text.replace(old, new)


def survives(folder: Path, name: str, old: str, new: str, fused: bool = False) -> bool:
    """Whether all tests are green on a mutant. The folder has sources and objects unchanged."""
    (source,) = sources(folder, [name])
    original = source.read_text()
    source.write_text(mutated(original, old, new))
    if name in APART:
        try:
            return passes_apart(folder, name)
        finally:
            source.write_text(original)
    kept = {path: path.read_bytes() for path in folder.glob(f"{name}*.o")}
    try:
        engine = build(folder, ["-O1"], root=folder, only=name, fused=fused)
        return green(engine, BATTERIES.get(name, ("ops", "programs", "threads")))
    finally:
        source.write_text(original)
        for path, content in kept.items():
            path.write_bytes(content)


def green(engine: Path, batteries: tuple[str, ...] = ("ops", "programs", "threads")) -> bool:
    """Whether the batteries pass on an engine."""
    tests = [ROOT / "tests" / f"test_native_{name}.py" for name in batteries]
    chosen = ["-k", "not ctrl_c", "-p", "other_engine"]
    return passes(tests, chosen, FPTT_ENGINE=str(engine))


def passes_apart(folder: Path, name: str) -> bool:
    """Whether the tests of a file that is not in the engine pass."""
    tests, words = APART[name]
    return passes([ROOT / "tests" / tests], ["-k", words], FPTT_RUNTIME=str(folder))


def passes(tests: list[Path], chosen: list[str], **variables: str) -> bool:
    """Whether tests pass in a process of their own, with these options and variables."""
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "--rootdir", ROOT, *chosen, *tests],
            env=environment(FPTT_HYPOTHESIS="quick", **variables),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=300,
        )
    except subprocess.TimeoutExpired:  # threads that wait for each other
        return False
    assert done.returncode in (0, 1, -11, -8, -6, -4), done.stdout + done.stderr
    return done.returncode == 0


def main(words: list[str]) -> int:
    survivors = []
    for fused, mutations in ((False, MUTATIONS), (True, FUSED_MUTATIONS)):
        wanted = [
            mutation
            for mutation in mutations
            if not words or any(word in " ".join(mutation) for word in words)
        ]
        if not wanted:
            continue
        if fused:
            os.environ["FPTT_OPS_FUSED"] = "1"
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in ("runtime", "src/fptt/native"):
                shutil.copytree(ROOT / part, folder / part, symlinks=True)
            if any(source not in APART for source, _, _ in wanted):
                engine = build(folder, ["-O1"], root=folder, fused=fused)
                assert green(engine), "red without any mutation"
            for apart in APART:
                if any(source == apart for source, _, _ in wanted):
                    assert passes_apart(folder, apart), "red without any mutation"
            for source, old, new in wanted:
                alive = survives(folder, source, old, new, fused)
                expected = old in EQUIVALENT
                word = "SURVIVED" if alive else "found"
                print(f"{word:8}  {source}: {old.strip()!r} -> {new.strip()!r}", flush=True)
                if alive and not expected:
                    survivors.append(old)
    print(f"{len(survivors)} survived")
    return len(survivors)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(bool(main(sys.argv[1:])))
