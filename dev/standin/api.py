"""The HTTP routes: vLLM's, and `/standin/faults` for tests."""

import asyncio
import hmac
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from dev.standin.arguments import Arguments
from dev.standin.embeddings import parse_embeddings
from dev.standin.engine import Engine, Generation
from dev.standin.errors import Json, RequestError
from dev.standin.faults import FaultInjector
from dev.standin.metrics import EngineMetrics
from dev.standin.protocol import Answer, GenerationRequest, parse_request
from dev.standin.responses import ResponsesAnswer, parse_response_request
from dev.standin.scheduler import FinishReason
from dev.standin.settings import Faults, MetricsMode, Settings

VERSION = "0.32.0"
"""The vLLM version that is stood in for."""

LARGEST_BODY = 256 * 2**20
"""Bytes. vLLM sets no limit; this only keeps a mistake from filling the memory."""

_SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}

# vLLM names an error's type after the exception, or after the HTTP status if there is none.
_ERROR_KINDS = {429: "RateLimitError", 500: "InternalServerError", 503: "ServiceUnavailableError"}


class Api:
    """The routes over one engine.

    `ready` says whether the model is loaded; until then /v1 answers 503. `created` is the Unix time that
    /v1/models reports.
    """

    def __init__(
        self,
        arguments: Arguments,
        settings: Settings,
        *,
        max_model_len: int,
        engine: Engine,
        metrics: EngineMetrics,
        injector: FaultInjector,
        created: int,
    ) -> None:
        self.ready = False
        self._arguments = arguments
        self._settings = settings
        self._max_model_len = max_model_len
        self._engine = engine
        self._metrics = metrics
        self._injector = injector
        self._created = created
        self._request_numbers = itertools.count()
        self._served = {*arguments.served_model_names, *(module.name for module in arguments.lora_modules)}

    def application(self) -> web.Application:
        """Return the aiohttp application."""

        @web.middleware
        async def guard(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[guard])
        app.add_routes(
            [
                web.get("/health", self._get_health),
                web.get("/ping", self._get_health),
                web.get("/version", self._get_version),
                web.get("/metrics", self._get_metrics),
                web.get("/v1/models", self._get_models),
                web.post("/v1/chat/completions", self._post_chat),
                web.post("/v1/completions", self._post_completion),
                web.post("/v1/embeddings", self._post_embeddings),
                web.post("/v1/responses", self._post_response),
                web.get("/standin/faults", self._get_faults),
                web.post("/standin/faults", self._post_faults),
                web.delete("/standin/faults", self._delete_faults),
            ]
        )
        return app

    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Check the API key and readiness under /v1, as vLLM does; turn refusals into answers."""
        if request.path.startswith("/v1/"):
            if not self._authorised(request):
                return web.json_response({"error": "Unauthorized"}, status=401)
            if not self.ready:
                return _error(503, "the model is still loading")
        try:
            return await handler(request)
        except RequestError as error:
            return _refuse(error)

    def _authorised(self, request: web.Request) -> bool:
        keys = self._arguments.api_keys
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return not keys or (
            scheme.lower() == "bearer"
            and any(hmac.compare_digest(given.encode(), key.encode()) for key in keys)
        )

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _get_version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        mode = self._injector.faults.metrics
        if mode is MetricsMode.ERROR:
            return web.Response(status=500, text="Internal Server Error")
        headers = {"Content-Type": "text/plain; version=1.0.0; charset=utf-8"}
        return web.Response(body=self._metrics.render(mode), headers=headers)

    async def _get_models(self, _request: web.Request) -> web.Response:
        names = self._arguments.served_model_names
        cards = [self._card(name, self._arguments.model, None, self._max_model_len) for name in names]
        cards += [
            self._card(module.name, module.path, names[0], None) for module in self._arguments.lora_modules
        ]
        return web.json_response({"object": "list", "data": cards})

    def _card(self, name: str, root: str, parent: str | None, max_model_len: int | None) -> Json:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": max_model_len,
        }

    async def _post_chat(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=True)

    async def _post_completion(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=False)

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        raw = await request.read()
        self._strike()
        parsed = parse_request(
            raw,
            chat=chat,
            default_model=self._arguments.served_model_names[0],
            max_model_len=self._max_model_len,
            natural_tokens=self._settings.output_tokens,
            force_usage=self._arguments.force_include_usage,
            tells_cached=self._arguments.prompt_tokens_details,
        )
        return await self._generate(request, parsed, Answer(parsed, self._next_id()))

    async def _post_response(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self._strike()
        parsed = parse_response_request(
            raw,
            default_model=self._arguments.served_model_names[0],
            max_model_len=self._max_model_len,
            natural_tokens=self._settings.output_tokens,
        )
        return await self._generate(request, parsed, ResponsesAnswer(parsed, self._next_id()))

    async def _post_embeddings(self, request: web.Request) -> web.StreamResponse:
        """Answer embeddings, whichever model is served; vLLM does so for pooling models only."""
        raw = await request.read()
        self._strike()
        parsed = parse_embeddings(
            raw,
            default_model=self._arguments.served_model_names[0],
            max_model_len=self._max_model_len,
        )
        await self._admit(parsed.model)
        # One token stands for the vector: the prompt is computed, and nothing after it (`vllm:generation_tokens`
        # counts it, where vLLM counts none).
        generations = [
            self._engine.submit(tokens, 1, 1, FinishReason.STOP) for tokens in parsed.prompt_tokens
        ]
        if not await self._wait_whole(generations, 1):
            return _error(500, "the request was aborted")
        return web.json_response(parsed.answer(self._next_id()))

    def _strike(self) -> None:
        """Count a request for the faults. Raises RequestError if it is to be refused."""
        refusal = self._injector.on_request()
        if refusal is not None:
            raise RequestError(refusal, _error_kind(refusal), "injected fault")

    async def _admit(self, model: str) -> None:
        """Check that the model is served and wait as long as the faults say. Raises RequestError."""
        if model not in self._served:
            raise RequestError(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
        if self._injector.faults.first_byte_delay_seconds:
            await asyncio.sleep(self._injector.faults.first_byte_delay_seconds)

    def _next_id(self) -> str:
        return f"{self._created:x}-{next(self._request_numbers)}"

    async def _generate(
        self, request: web.Request, parsed: GenerationRequest, answer: Answer | ResponsesAnswer
    ) -> web.StreamResponse:
        await self._admit(parsed.model)
        generations = [
            self._engine.submit(
                parsed.prompt_tokens, parsed.output_tokens, parsed.max_tokens, parsed.finish_reason
            )
            for _ in range(parsed.choices)
        ]
        if parsed.stream:
            try:
                return await self._stream(request, parsed, generations, answer)
            finally:
                _abort(generations)
        if not await self._wait_whole(generations, parsed.output_tokens):
            return _error(500, "the request was aborted")
        return web.json_response(answer.whole())

    @staticmethod
    async def _wait_whole(generations: list[Generation], tokens: int) -> bool:
        """Wait until each has so many tokens; return False if one ended before."""
        try:
            return all([await generation.wait_for(tokens) >= tokens for generation in generations])
        finally:
            _abort(generations)

    async def _stream(
        self,
        request: web.Request,
        parsed: GenerationRequest,
        generations: list[Generation],
        answer: Answer | ResponsesAnswer,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_SSE_HEADERS)
        writer = await response.prepare(request)
        if writer is not None:
            # As uvicorn does: headers leave before the first token is there.
            writer.send_headers()
        breaks_after = (
            self._injector.faults.break_stream_after_tokens if self._injector.breaks_stream() else None
        )
        sent = generated = 0
        while sent < parsed.output_tokens:
            target = min(sent + self._settings.tokens_per_event if sent else 1, parsed.output_tokens)
            for index, generation in enumerate(generations):
                broken = breaks_after is not None and sent >= breaks_after
                if await generation.wait_for(target) < target or broken:
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                for event in answer.first_events(index) if sent == 0 else ():
                    await response.write(answer.encode(event))
                generated += target - sent
                await response.write(answer.encode(answer.event(index, sent, target, generated)))
            sent = target
        for event in answer.last_events(generated):
            await response.write(answer.encode(event))
        await response.write(answer.END)
        return response

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(asdict(self._injector.faults))

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            self._injector.patch(json.loads(await request.read()))
        except ValueError as error:
            raise RequestError(400, "BadRequestError", str(error)) from error
        return await self._get_faults(request)

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self._injector.set(Faults())
        return await self._get_faults(request)


def _abort(generations: list[Generation]) -> None:
    """Free the places in the batch: the client may be gone."""
    for generation in generations:
        generation.abort()


def _error_kind(status: int) -> str:
    return _ERROR_KINDS.get(status, "InternalServerError")


def _error(status: int, message: str) -> web.Response:
    return _refuse(RequestError(status, _error_kind(status), message))


def _refuse(error: RequestError) -> web.Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    return web.json_response(error.body(), status=error.status, headers=headers)
