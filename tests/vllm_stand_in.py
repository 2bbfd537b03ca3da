"""A small HTTP server that answers for BGE-M3 as vLLM's documentation says, by a real checkpoint run in torch.

After "Specific Model Examples", "Pooling API" and the OpenAI-compatible server of vLLM's documentation, and its own test
of the model: /v1/models, /tokenize, /v1/embeddings (task embed) and /pooling (tasks token_classify and token_embed). One
text is run at a time, without padding. It shares no code with m3retriever.
"""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch
from transformers import AutoTokenizer, XLMRobertaModel

# vLLM leaves <s> out in token_embed, <s> and </s> in token_classify
KEEPS = {"token_embed": slice(1, None), "token_classify": slice(1, -1)}


class Checkpoint:
    """A folder in BGE-M3's layout: what vLLM's three tasks give for one text's token ids."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()
        size = self.model.config.hidden_size
        self.sparse, self.colbert = torch.nn.Linear(size, 1), torch.nn.Linear(size, size)
        for name in ("sparse", "colbert"):
            getattr(self, name).load_state_dict(torch.load(folder / f"{name}_linear.pt", weights_only=True))

    @torch.inference_mode()
    def run(self, task, ids):
        hidden = self.model(torch.tensor([ids])).last_hidden_state[0]
        if task == "embed":
            return torch.nn.functional.normalize(hidden[0], dim=-1).numpy()
        if task == "token_embed":
            return torch.nn.functional.normalize(self.colbert(hidden), dim=-1).numpy()
        return torch.relu(self.sparse(hidden)).numpy()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send({"object": "list", "data": [self.server.card()]} if self.path == "/v1/models" else None)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, asked))
        if asked.get("model") != self.server.name:
            self.send(None, 404)
            return
        answers = {"/tokenize": self.server.tokenize, "/v1/embeddings": self.server.embeddings, "/pooling": self.server.pooling}
        answer = answers[self.path](asked) if self.path in answers else None
        self.send(answer, 400)

    def send(self, answer, failed=404):
        body = json.dumps({"error": {"message": "no", "type": "BadRequestError"}} if answer is None else answer).encode()
        self.send_response(failed if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class VLLM(ThreadingHTTPServer):
    """`tasks` are those it serves: all of them, as older versions, or one. `dtype` is what its numbers are rounded to."""

    daemon_threads = True

    def __init__(self, checkpoint, *, name="BAAI/bge-m3", tasks=("embed", *KEEPS), longest=128, dtype=np.float32, keeps=KEEPS):
        super().__init__(("127.0.0.1", 0), Handler)
        self.checkpoint, self.name, self.tasks, self.longest = checkpoint, name, tasks, longest
        self.dtype, self.keeps, self.seen, self.base64 = dtype, keeps, [], True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def card(self):
        return {"id": self.name, "object": "model", "owned_by": "vllm", "root": self.name, "max_model_len": self.longest}

    def tokenize(self, asked):
        ids = self.checkpoint.tokenizer(asked["prompt"], add_special_tokens=asked.get("add_special_tokens", True)).input_ids
        return {"count": len(ids), "max_model_len": self.longest, "tokens": ids, "token_strs": None}

    def embeddings(self, asked):
        rows = self.rows("embed", asked)
        data = rows and [{"index": place, "object": "embedding", "embedding": row} for place, row in enumerate(rows)]
        return rows and {"id": "embd-1", "object": "list", "model": self.name, "data": data, "usage": {}}

    def pooling(self, asked):
        rows = self.rows(asked.get("task"), asked) if asked.get("task") in self.keeps else None
        data = rows and [{"index": place, "object": "pooling", "data": row} for place, row in enumerate(rows)]
        return rows and {"id": "pool-1", "object": "list", "model": self.name, "data": data, "usage": {}}

    def rows(self, task, asked):
        prompts = [self.ids(prompt) for prompt in self.prompts(asked["input"])]
        if task not in self.tasks or any(len(ids) > self.longest for ids in prompts):
            return None
        return [self.written(self.kept(task, ids), asked) for ids in prompts]

    def prompts(self, given):
        return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given

    def ids(self, prompt):
        return self.checkpoint.tokenizer(prompt).input_ids if isinstance(prompt, str) else prompt

    def kept(self, task, ids):
        rows = self.checkpoint.run(task, ids)
        rows = rows if task == "embed" else rows[self.keeps[task]]
        return (rows.squeeze(-1) if task == "token_classify" else rows).astype(self.dtype).astype("<f4")

    def written(self, row, asked):
        if self.base64 and asked.get("encoding_format") == "base64":
            return base64.b64encode(np.ascontiguousarray(row).tobytes()).decode()
        return row.tolist()


@contextmanager
def running(checkpoint, **settings):
    """A server on a free port."""
    server = VLLM(checkpoint, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
