#!/usr/bin/env python3
"""Runs the program as a user would: good commands answer with the promised keys, bad ones name the flag, what was found and what
was expected, print nothing on standard output and exit with the code of their kind. Usage: command_line.py ROOFTREE"""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile

ROOFTREE = sys.argv[1]
H100 = ["analyze", "llama-3.2-1b", "--on", "nvidia-h100-sxm"]

# A model of 0.1 M random weights: a description is enough.
TINY_FOLDER = tempfile.TemporaryDirectory()
with open(os.path.join(TINY_FOLDER.name, "config.json"), "w", encoding="utf-8") as config:
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
               "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 96,
               "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
               "hidden_act": "silu"}, config)
TINY = ["run", TINY_FOLDER.name, "--random", "--weights", "bf16"]
# The same with eight layers.
DEEP_FOLDER = tempfile.TemporaryDirectory()
with open(os.path.join(TINY_FOLDER.name, "config.json"), encoding="utf-8") as shallow:
    with open(os.path.join(DEEP_FOLDER.name, "config.json"), "w", encoding="utf-8") as config:
        json.dump(json.load(shallow) | {"num_hidden_layers": 8}, config)
DEEP = ["run", DEEP_FOLDER.name, "--random", "--weights", "bf16", "--tokens", "1,5,9", "--max-tokens", "8"]
EXPLORE = ["explore", "chip", "--model", "llama-3.2-1b"]

# (arguments, exit code, words of the message)
BAD = [
    (["analyze", "no-such-model", "--on", "nvidia-h100-sxm"], 2, ["no-such-model"]),
    (["analyze", "llama-3.2-1b", "--on", "no-such-machine"], 2, ["no-such-machine"]),
    (["analyze", "llama-3.2-1b"], 2, ["--on"]),
    (H100 + ["--no-such-flag"], 2, ["--no-such-flag"]),
    (H100 + ["--phase", "sleep"], 2, ["--phase", "sleep", "expected"]),
    (H100 + ["--batch", "0"], 2, ["--batch", "expected"]),
    (H100 + ["--batch", "1e3"], 2, ["--batch", "expected"]),
    (H100 + ["--batch", "999999999999"], 2, ["batch", "expected"]),
    (H100 + ["--context", "-5"], 2, ["--context", "expected"]),
    (H100 + ["--tokens", "5"], 2, ["--tokens", "decode", "--context"]),
    (H100 + ["--optimizer", "adam"], 2, ["--optimizer", "train"]),
    (H100 + ["--phase", "train", "--optimizer", "magic"], 2, ["--optimizer", "magic", "adam"]),
    (H100 + ["--weights", "q9"], 2, ["--weights", "q9", "expected"]),
    (H100 + ["--expert-weights", "q9"], 2, ["--expert-weights", "q9", "expected"]),
    (H100 + ["--kv", ""], 0, []),
    (H100 + ["--sparsity", "3:4"], 2, ["--sparsity", "3:4", "expected"]),
    (H100 + ["--sparsity", "block:2"], 2, ["--sparsity", "expected"]),
    (H100 + ["--fusion", "nuclear"], 2, ["--fusion", "nuclear", "standard"]),
    (H100 + ["--stack", "haystack"], 2, ["--stack", "haystack", "engine"]),
    (H100 + ["--sweep", "batch"], 2, ["--sweep", "expected"]),
    (H100 + ["--sweep", "batch=4..1"], 2, ["--sweep", "4..1", "expected"]),
    (H100 + ["--sweep", "colour=1"], 2, ["--sweep", "colour", "expected"]),
    (H100 + ["--sweep", "weights=bf16,q9"], 2, ["--sweep", "q9"]),
    (H100 + ["--set", "chip.dram.bandwidth=8"], 2, ["--set", "unit"]),
    (H100 + ["--set", "chip.dram.colour=8 TB/s"], 2, ["--set", "colour"]),
    (H100 + ["--html", "/no/such/folder/page.html"], 3, ["/no/such/folder/page.html"]),
    (["analyze", "resnet-50", "--on", "nvidia-h100-sxm", "--phase", "decode"], 2, ["resnet-50"]),
    (EXPLORE + ["--x", "colour=1..2", "--y", "compute=1 TFLOP/s..2 TFLOP/s"], 2, ["--x", "colour", "expected"]),
    (EXPLORE + ["--x", "compute=1..2", "--y", "memory.capacity=1 GB..2 GB"], 2, ["--x", "unit"]),
    (EXPLORE + ["--x", "compute=2 TFLOP/s..1 TFLOP/s", "--y", "memory.capacity=1 GB..2 GB"], 2, ["--x", "expected"]),
    (EXPLORE + ["--x", "compute=1 TFLOP/s..2 TFLOP/s", "--y", "memory.capacity=8 GB..9 GB", "--budget", "3 apples"], 2, ["--budget", "3 apples"]),
    (EXPLORE + ["--x", "compute=1 TFLOP/s..2 TFLOP/s", "--y", "memory.capacity=1 MB..2 MB"], 1, []),
    (["machines", "no-such-machine"], 2, ["no-such-machine"]),
    (["machines", "dgx-h100,no-such-machine"], 2, ["no-such-machine"]),
    (["machines", "dgx-h100,"], 2, ["expected"]),
    (["machines", "--kind", "toaster"], 2, ["--kind", "toaster", "gpu"]),
    (["machines", "--sort", "beauty"], 2, ["--sort", "beauty", "memory"]),
    (["machines", "--min-memory", "80"], 2, ["--min-memory", "80"]),
    (["machines", "--set", "chip.power_max=5 W"], 2, ["--set", "NAME"]),
    (["machines", "dgx-h100", "--kind", "gpu"], 2, ["dgx-h100", "--kind", "expected"]),
    (["machines", "--standards", "dgx-h100"], 2, ["--standards", "dgx-h100"]),
    (["run", "no-such-model.gguf", "-p", "x"], 3, ["no-such-model.gguf"]),
    (["run", "no-such-folder", "-p", "x"], 3, ["no-such-folder", "expected"]),
    (["run", "no-such-model", "--random", "--tokens", "1"], 2, ["no-such-model"]),
    (DEEP + ["--memory", "3"], 2, ["--memory", "unit"]),
    (DEEP + ["--memory", "3 apples"], 2, ["--memory", "apples"]),
    (DEEP + ["--memory", "0 B"], 2, ["--memory", "expected"]),
    (DEEP + ["--memory", "1 kB"], 2, ["scratch", "limit"]),
    (DEEP + ["--cache", "/proc/no/such/folder"], 3, ["/proc/no/such/folder"]),
    (TINY + ["--tokens", "1,x"], 2, ["--tokens", "x", "expected"]),
    (TINY + ["--tokens", "999999"], 2, ["token 999999", "expected"]),
    (TINY + ["-p", "text"], 2, ["tokenizer", "--tokens"]),
    (TINY + ["-p", "text", "--tokens", "1"], 2, ["more than one prompt"]),
    (TINY + ["--tokens", "1", "--temperature", "-1"], 2, ["temperature"]),
    (TINY + ["--tokens", "1", "--top-p", "2"], 2, ["top_p"]),
    (TINY + ["--tokens", "1", "--logit-bias", "5"], 2, ["--logit-bias", "expected"]),
    (TINY + ["--tokens", "1", "--level", "D"], 2, ["--level", "D", "expected"]),
    (TINY + ["--tokens", "1", "--level", "A"], 2, ["level A"]),
    (TINY + ["--tokens", "1", "--kv", "q4_k"], 2, ["cache", "expected"]),
    (TINY + ["--tokens", "1", "--backend", "abacus"], 2, ["--backend", "abacus", "expected"]),
    (TINY + ["--tokens", "1", "--max-tokens", "-1"], 2, ["max_tokens"]),
    (TINY + ["--tokens", "1", "--logits", "/no/such/folder/l.npy"], 3, ["/no/such/folder/l.npy"]),
    (TINY + ["--tokens", "1", "--stop", "x"], 2, ["tokenizer"]),
    (TINY + ["--tokens", "1", "--chat"], 2, ["--chat", "--tokens"]),
    (TINY + ["-p", "x", "--template", "chatml"], 2, ["--template", "--chat"]),
    (["chat", "no-such-model.gguf"], 3, ["no-such-model.gguf"]),
    (["chat", "no-such-folder"], 3, ["no-such-folder", "expected"]),
    (["chat", "x.gguf", "--no-such-flag"], 2, ["--no-such-flag"]),
    (["convert", "in.gguf", "out.gguf"], 2, ["--weights"]),
    (["convert", "in.gguf", "--weights", "q8_0"], 2, ["out"]),
    (["convert", "in.gguf", "out.gguf", "--weights", "q9"], 2, ["--weights", "q9", "expected"]),
    (["convert", "in.gguf", "out.gguf", "--weights", "mxint8"], 2, ["mxint8", "expected", "q8_0"]),
    (["convert", "/no/such/in.gguf", "out.gguf", "--weights", "q8_0"], 3, ["/no/such/in.gguf"]),
    (["explore", "moon", "--model", "llama-3.2-1b", "--x", "a", "--y", "b"], 2, ["moon", "chip"]),
]

failures = []


def run(arguments, text=""):
    environment = dict(os.environ, COLUMNS="100", NO_COLOR="1")
    return subprocess.run([ROOFTREE] + arguments, input=text, capture_output=True, text=True, timeout=120, env=environment)


def check(condition, arguments, what):
    if not condition:
        failures.append(f"rooftree {' '.join(arguments)}: {what}")


for arguments, code, words in BAD:
    result = run(arguments)
    check(result.returncode == code, arguments, f"exit code {result.returncode}, expected {code}: {result.stderr.strip()[:300]}")
    for word in words:
        check(word in result.stderr, arguments, f"the message lacks '{word}': {result.stderr.strip()[:300]}")
    if code in (2, 3) and "--html" not in arguments:
        check(result.stdout == "", arguments, "an error prints to standard output")


def refuse(name):
    raise ValueError(f"{name} in JSON")


def as_json(arguments):
    result = run(arguments)
    check(result.returncode == 0, arguments, result.stderr)
    try:
        return json.loads(result.stdout, parse_constant=refuse)
    except ValueError as error:
        check(False, arguments, str(error))
        return {}


answer = as_json(["analyze", "llama-3.1-70b", "--on", "nvidia-a100-sxm-80", "--phase", "decode", "--batch", "1", "--context", "2048", "--json"])
for key in ["time_s", "time_interval_s", "bound", "flop", "bytes_dram", "intensity_flop_per_byte", "ridge_flop_per_byte", "tokens_per_s",
            "memory_bytes", "fits", "energy_j", "cost_usd", "utilization", "sensitivities", "operators"]:
    check(key in answer, ["analyze"], f"JSON lacks {key}")
check(answer.get("fits") is False, ["analyze"], "140 GB of weights fit into 80 GB")
check(answer.get("context") == 2048, ["analyze"], "the context is not echoed")
check(len(as_json(H100[:-1] + ["nvidia-h100-sxm,amd-mi300x", "--json"]).get("estimates", [])) == 2, ["analyze"], "two machines, not two estimates")
sweep = as_json(H100 + ["--sweep", "batch=1,2,4..16", "--json"])
check([p["batch"] for p in sweep.get("points", [])] == [1, 2, 4, 8, 16], ["analyze", "--sweep"], "batches differ")
rates = [p["tokens_per_s"] for p in sweep.get("points", [])]
check(rates == sorted(rates), ["analyze", "--sweep"], "more sequences, fewer tokens per second")

with tempfile.TemporaryDirectory() as folder:
    page, figure = os.path.join(folder, "page.html"), os.path.join(folder, "roofline.svg")
    arguments = H100 + ["--html", page, "--svg", figure]
    result = run(arguments)
    check(result.returncode == 0, arguments, result.stderr)
    html = open(page, encoding="utf-8").read()
    check("http://" not in html and "https://" not in html, arguments, "the page refers to the network")
    data = html.split('id="data">', 1)[1].split("</script>", 1)[0]
    check(len(json.loads(data, parse_constant=refuse)["cells"]) > 8, arguments, "the page offers too little")
    check(open(figure, encoding="utf-8").read().startswith("<svg"), arguments, "the figure is not SVG")

with tempfile.TemporaryDirectory() as folder:
    logits = os.path.join(folder, "logits.npy")
    answer = as_json(TINY + ["--tokens", "1,5,9", "--max-tokens", "8", "--logits", logits, "--json"])
    for key in ["model", "backend", "level", "threads", "load_s", "weights_bytes", "kv_bytes", "prompt_tokens", "prompt_s",
                "prompt_tokens_per_s", "decode_tokens", "decode_s", "decode_tokens_per_s", "reason", "tokens"]:
        check(key in answer, ["run"], f"JSON lacks {key}")
    check(len(answer.get("tokens", [])) == 8, ["run"], "not 8 tokens")
    check(answer.get("level") == "B", ["run"], "bf16 weights are level B")
    check(os.listdir(folder) == ["logits.npy"], ["run", "--logits"], "something else was left behind")
    data = open(logits, "rb").read()
    check(data[:6] == b"\x93NUMPY" and b"'shape': (11, 96)" in data[:128] and len(data) == 128 + 11 * 96 * 4, ["run", "--logits"],
          "not a float32 array of 11 rows")
    sampled = [as_json(TINY + ["--tokens", "1,5,9", "--max-tokens", "20", "--temperature", "1", "--json"] + more).get("tokens")
               for more in (["--seed", "3"], ["--seed", "3", "--lookup", "4", "--threads", "1"], ["--seed", "4"])]
    check(sampled[0] == sampled[1], ["run"], "drafts or threads change the answer")
    check(sampled[0] != sampled[2], ["run"], "the seed changes nothing")

def chat(arguments, text):
    arguments = ["chat", STORIES] + arguments + ["--json"]
    result = run(arguments, text)
    check(result.returncode == 0, arguments, result.stderr)
    return [json.loads(line, parse_constant=refuse) for line in result.stdout.splitlines()]


def read_until(terminal, words):
    """What the terminal shows until it ends with `words`, or the program ends."""
    shown = b""
    while not shown.endswith(words):
        try:
            more = os.read(terminal, 1)
        except OSError:  # the other side is closed
            break
        if not more:
            break
        shown += more
    return shown.decode("utf-8", "replace")


STORIES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../shared/models/stories260k-f32.gguf")
if os.path.exists(STORIES):
    for arguments, text, code, words in [
            ([], "Hello\n", 2, ["no chat template", "--template", "chatml"]),
            (["--template", "no-such-template"], "Hello\n", 2, ["no-such-template", "chatml", "file"]),
            (["--template", "chatml", "--top-p", "2"], "Hello\n", 2, ["top_p"]),
            (["--template", "chatml"], "/no-such-command\n", 2, ["/no-such-command", "/reset"]),
            (["--template", "chatml", "--date", "yesterday"], "Hello\n", 2, ["yesterday"])]:
        arguments = ["chat", STORIES] + arguments
        result = run(arguments, text)
        check(result.returncode == code, arguments, f"exit code {result.returncode}, expected {code}: {result.stderr[:300]}")
        check(result.stdout == "", arguments, "an error prints to standard output")
        for word in words:
            check(word in result.stderr, arguments, f"the message lacks '{word}': {result.stderr.strip()[:300]}")

    CHATML = ["--template", "chatml", "--ctx", "400", "--max-tokens", "24"]
    SCRIPT = "Once upon a time\r\n\nTell me more\n"
    plain = [run(["chat", STORIES] + CHATML + more, SCRIPT) for more in ([], [], ["--threads", "1"])]
    check(plain[0].returncode == 0, ["chat"], plain[0].stderr)
    check(plain[0].stdout == plain[1].stdout == plain[2].stdout, ["chat"], "the same script, other bytes")
    answers = chat(CHATML, SCRIPT)
    check("".join(a["text"] + "\n" for a in answers) == plain[0].stdout, ["chat", "--json"], "not the text without --json")
    for key in ["answer", "conversation_tokens", "context_tokens", "reused_tokens", "prompt_tokens", "prompt_s", "prompt_tokens_per_s",
                "decode_tokens", "decode_s", "decode_tokens_per_s", "reason", "tokens", "text"]:
        check(all(key in a for a in answers), ["chat"], f"JSON lacks {key}")
    first, second = answers
    check(first["reused_tokens"] == 0, ["chat"], "the first prompt was known before")
    # The prompt and the answer but its last token, which nothing has followed yet, and what its text and the template's merge into.
    check(first["prompt_tokens"] < second["reused_tokens"] < first["conversation_tokens"], ["chat"], f"{second['reused_tokens']} tokens reused")
    check(second["reused_tokens"] + second["prompt_tokens"] + len(second["tokens"]) == second["conversation_tokens"], ["chat"], "tokens are missing")

    # After /reset the first answer comes again, from cached blocks; the conversation may be told something before.
    again = chat(CHATML, SCRIPT + "/reset\nOnce upon a time\n/stats\n/quit\nnever read\n")
    check([a["tokens"] for a in again] == [a["tokens"] for a in answers + answers[:1]], ["chat"], "/reset leaves something")
    told = chat(CHATML + ["--system", "Be kind"], SCRIPT)
    check(told[0]["prompt_tokens"] > first["prompt_tokens"], ["chat"], "--system is not in the prompt")
    with tempfile.TemporaryDirectory() as folder:
        template = os.path.join(folder, "mine.jinja")
        with open(template, "w", encoding="utf-8") as file:
            file.write("{% for m in messages %}{{ m.content }} {% endfor %}")
        mine = chat(["--template", template, "--max-tokens", "8"], "Once upon\n")
        prompted = as_json(["run", STORIES, "-p", "Once upon ", "--max-tokens", "8", "--json"])
        check(mine[0]["tokens"] == prompted.get("tokens"), ["chat", "--template"], "not the prompt of the template")

    # A full context refuses the message and says so.
    arguments = ["chat", STORIES, "--template", "chatml", "--ctx", "100", "--max-tokens", "500", "--logit-bias", "2=-inf", "--json"]
    result = run(arguments, "Once\nMore\n/reset\nOnce\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    check(result.returncode == 1, arguments, f"exit code {result.returncode}, expected 1")
    check([list(line)[0] for line in lines] == ["answer", "refused", "answer"], arguments, result.stdout[:300])
    check(lines[0]["reason"] == "context" and lines[0]["conversation_tokens"] == 100, arguments, "the context is not used up")
    check("/reset" in lines[1]["refused"] and "100" in lines[1]["refused"], arguments, result.stdout)
    check(lines[0]["tokens"] == lines[2]["tokens"], arguments, "another answer after /reset")

    # The same prompt through `run --chat`.
    once = as_json(["run", STORIES, "--chat", "--template", "chatml", "-p", "Once upon a time", "--max-tokens", "24", "--json"])
    check(once.get("tokens") == first["tokens"], ["run", "--chat"], "not the answer of chat")

    # On a terminal, Ctrl-C stops an answer, and at the prompt the program.
    process, terminal = pty.fork()
    if process == 0:
        os.execv(ROOFTREE, [ROOFTREE, "chat", STORIES, "--template", "chatml", "--ctx", "30000", "--max-tokens", "30000", "--logit-bias",
                            "2=-inf"])
    read_until(terminal, b"> ")
    os.write(terminal, b"Once\n")
    read_until(terminal, b"Once\r\n")
    os.read(terminal, 1)
    os.write(terminal, b"\x03")
    check(read_until(terminal, b"\n> ").endswith("> "), ["chat"], "no prompt after Ctrl-C")
    os.write(terminal, b"/stats\n")
    check("answers: 1" in read_until(terminal, b"> "), ["chat"], "no /stats after Ctrl-C")
    os.write(terminal, b"\x03")
    read_until(terminal, b"never")
    _, status = os.waitpid(process, 0)
    check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT, ["chat"], f"Ctrl-C at the prompt: status {status}")
    os.close(terminal)
else:
    print(f"skipped: chat, no {STORIES}")
with tempfile.TemporaryDirectory() as folder:
    cached = DEEP + ["--json", "--cache", folder]
    first, second = as_json(cached), as_json(cached)
    check(not first.get("weights_reused") and second.get("weights_reused"), cached, "the packed weights are not used again")
    check(first.get("tokens") == second.get("tokens"), cached, "packed weights from the file change the answer")
    check(len(os.listdir(folder)) == 1, cached, "not one file of packed weights")
    limit = first["kv_bytes"] + first["scratch_bytes"] + first["weights_bytes"] * 6 // 10
    limited = ["--memory", f"{limit} B"]
    for arguments in (cached + limited, DEEP + ["--json"] + limited):
        streamed = as_json(arguments)
        check(streamed.get("tokens") == first.get("tokens"), arguments, "streaming changes the answer")
        check(streamed["streamed_bytes_per_step"] > 0 and streamed["stream_bytes_per_s"] > 0, arguments, "nothing is streamed")
        check(streamed["resident_bytes"] + streamed["streamed_bytes_per_step"] == first["weights_bytes"], arguments,
              "weights are lost")
    result = run(DEEP + limited)
    check("weights stream from disk: " in result.stderr, DEEP + limited, f"no word of streaming: {result.stderr}")

for width in ["80", "100", "200"]:
    result = subprocess.run([ROOFTREE] + H100, capture_output=True, text=True, timeout=120, env=dict(os.environ, COLUMNS=width))
    longest = max(len(line) for line in result.stdout.splitlines())
    check(longest <= int(width), H100, f"a line of {longest} columns in a terminal of {width}")

for failure in failures:
    print(failure)
print(f"{len(BAD)} bad or bounded commands, {len(failures)} failures")
sys.exit(1 if failures else 0)
