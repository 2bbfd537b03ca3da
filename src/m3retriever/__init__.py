"""Hybrid retrieval with BGE-M3: dense, sparse and ColBERT scores in one ranking, with the reasons shown.

Names are loaded when they are first used: importing this package costs about what NumPy costs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "errors": [
        "DamagedIndexError",
        "DeviceMemoryError",
        "EncoderMismatchError",
        "InvalidArgumentError",
        "InvalidDocumentError",
        "InvalidFilterError",
        "InvalidVectorsError",
        "M3RetrieverError",
        "MissingExtraError",
        "ModelLoadError",
        "ProfileError",
        "ServiceError",
        "StoreError",
        "StoreLockedError",
        "TruncationWarning",
        "UnknownDocumentError",
        "UnknownTextWarning",
    ],
    "types": ["MODES", "Document", "Encoder", "Hit", "M3Vectors", "Mode", "ModeScores", "Profile", "Store", "Token", "Weights"],
    "calibration": ["Calibration"],
    "cleaning": ["clean"],
    "explanation": ["Explanation", "SharedToken"],
    "index": ["M3Index"],
    "ingest": ["Added"],
    "passages": ["DocumentHit", "Split"],
    "profile": ["PRESETS", "load_profile", "save_profile"],
    "reranking": ["Reranked", "rerank"],
    "fusion": ["FUSIONS"],
    "watched": ["WatchedProfile"],
    "encoders": ["load_encoder"],
    "encoders.bge_m3": ["BGEM3Encoder"],
    "encoders.devices": ["DevicesEncoder"],
    "encoders.hashing": ["HashingEncoder"],
    "encoders.mini": ["MiniEncoder"],
    "encoders.pooled": ["PooledEncoder"],
    "encoders.ray_data": ["RayEncoder"],
    "encoders.remote": ["RemoteEncoder"],
    "encoders.vllm": ["VLLMEncoder"],
    "stores.chroma": ["ChromaStore"],
    "stores.memory": ["MemoryStore"],
    "stores.qdrant": ["QdrantStore"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from m3retriever.calibration import Calibration as Calibration
    from m3retriever.cleaning import clean as clean
    from m3retriever.encoders import load_encoder as load_encoder
    from m3retriever.encoders.bge_m3 import BGEM3Encoder as BGEM3Encoder
    from m3retriever.encoders.devices import DevicesEncoder as DevicesEncoder
    from m3retriever.encoders.hashing import HashingEncoder as HashingEncoder
    from m3retriever.encoders.mini import MiniEncoder as MiniEncoder
    from m3retriever.encoders.pooled import PooledEncoder as PooledEncoder
    from m3retriever.encoders.ray_data import RayEncoder as RayEncoder
    from m3retriever.encoders.remote import RemoteEncoder as RemoteEncoder
    from m3retriever.encoders.vllm import VLLMEncoder as VLLMEncoder
    from m3retriever.errors import DamagedIndexError as DamagedIndexError
    from m3retriever.errors import DeviceMemoryError as DeviceMemoryError
    from m3retriever.errors import EncoderMismatchError as EncoderMismatchError
    from m3retriever.errors import InvalidArgumentError as InvalidArgumentError
    from m3retriever.errors import InvalidDocumentError as InvalidDocumentError
    from m3retriever.errors import InvalidFilterError as InvalidFilterError
    from m3retriever.errors import InvalidVectorsError as InvalidVectorsError
    from m3retriever.errors import M3RetrieverError as M3RetrieverError
    from m3retriever.errors import MissingExtraError as MissingExtraError
    from m3retriever.errors import ModelLoadError as ModelLoadError
    from m3retriever.errors import ProfileError as ProfileError
    from m3retriever.errors import ServiceError as ServiceError
    from m3retriever.errors import StoreError as StoreError
    from m3retriever.errors import StoreLockedError as StoreLockedError
    from m3retriever.errors import TruncationWarning as TruncationWarning
    from m3retriever.errors import UnknownDocumentError as UnknownDocumentError
    from m3retriever.errors import UnknownTextWarning as UnknownTextWarning
    from m3retriever.explanation import Explanation as Explanation
    from m3retriever.explanation import SharedToken as SharedToken
    from m3retriever.fusion import FUSIONS as FUSIONS
    from m3retriever.index import M3Index as M3Index
    from m3retriever.ingest import Added as Added
    from m3retriever.passages import DocumentHit as DocumentHit
    from m3retriever.passages import Split as Split
    from m3retriever.profile import PRESETS as PRESETS
    from m3retriever.profile import load_profile as load_profile
    from m3retriever.profile import save_profile as save_profile
    from m3retriever.reranking import Reranked as Reranked
    from m3retriever.reranking import rerank as rerank
    from m3retriever.stores.chroma import ChromaStore as ChromaStore
    from m3retriever.stores.memory import MemoryStore as MemoryStore
    from m3retriever.stores.qdrant import QdrantStore as QdrantStore
    from m3retriever.types import MODES as MODES
    from m3retriever.types import Document as Document
    from m3retriever.types import Encoder as Encoder
    from m3retriever.types import Hit as Hit
    from m3retriever.types import M3Vectors as M3Vectors
    from m3retriever.types import Mode as Mode
    from m3retriever.types import ModeScores as ModeScores
    from m3retriever.types import Profile as Profile
    from m3retriever.types import Store as Store
    from m3retriever.types import Token as Token
    from m3retriever.types import Weights as Weights
    from m3retriever.watched import WatchedProfile as WatchedProfile


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'm3retriever' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"m3retriever.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
