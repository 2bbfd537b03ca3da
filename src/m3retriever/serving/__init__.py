"""The HTTP service: `m3retriever serve` (extra `serve`). See docs/service.md.

launch.py        what is checked before anything is loaded; the one entry point
settings.py      limits and waiting
opening.py       which model and which index are served; asked.py lends them vectors made before
following.py      what other clients of a Chroma server change meanwhile
service.py       what a running service holds: the model, its queue, threads, and whether it is ready
batching.py      the queue in front of the encoder, and which requests share a pass
independence.py  whether an encoder's vectors depend on what is encoded beside them
app.py, routes.py, schemas.py, answers.py   the endpoints: wiring, steps, what comes in, what goes out
bodies.py, guard.py, refusals.py, pieces.py what is read of a request, who gets in, how a refusal and an answer are sent
numbers.py       /metrics
server.py        uvicorn, signals and the access log
"""
