"""Errors as people read them: a page in the visitor's language, or JSON for programs; what happened, what is kept, what to do."""

import secrets
import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from console.web import Console, DatabaseAwayError, KafkaAwayError, words_for
from monitoring.log import get_logger

JSON_PATHS = ("/api/", "/stream", "/health")
RETRY_AFTER_S = "10"

log = get_logger("console.error_page")


def add_error_pages(app: FastAPI, console: Console) -> None:
    """Answer every error of the application."""

    def answer(request: Request, code: int, title: str, do: str, *, detail: str = "", incident: str = "") -> Response:
        words = words_for(request)
        if request.url.path.startswith(JSON_PATHS):
            body = {"detail": detail or words[title]} | ({"incident": incident} if incident else {})
            found: Response = JSONResponse(body, code)
        else:
            values = {
                "title": words[title],
                "do": words[do],
                "detail": detail,
                "incident": incident,
                "retry": code >= 500,
            }
            found = console.page(request, "problem.html", values, code)
        if code == 503:
            found.headers["Retry-After"] = RETRY_AFTER_S
        return found

    @app.exception_handler(DatabaseAwayError)
    def database_away(request: Request, error: DatabaseAwayError) -> Response:
        detail = "the database does not answer; try again" if request.url.path.startswith(JSON_PATHS) else ""
        return answer(request, 503, "database_away", "database_away_do", detail=detail)

    @app.exception_handler(KafkaAwayError)
    def kafka_away(request: Request, error: KafkaAwayError) -> Response:
        return answer(request, 503, "kafka_away", "kafka_away_do")

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        title = "not_found" if error.status_code == 404 else "bad_request"
        return answer(request, error.status_code, title, "not_found_do", detail=error.detail)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, 422, "bad_request", "not_found_do", detail=explain(error.errors()))

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(4)
        trace = "".join(traceback.format_exception(error))[-4000:]
        log.error("request_failed", incident=incident, path=request.url.path, error=repr(error)[:300], traceback=trace)
        detail = f"this request failed; incident {incident}" if request.url.path.startswith(JSON_PATHS) else ""
        return answer(request, 500, "failed", "failed_do", detail=detail, incident=incident)


def explain(errors: Any) -> str:
    """Return what is wrong with a request, naming each value.

    Example:
        >>> explain([{"loc": ("query", "limit"), "msg": "Input should be greater than or equal to 1"}])
        'limit: Input should be greater than or equal to 1'
    """
    return "; ".join(f"{'.'.join(map(str, item['loc'][1:])) or item['loc'][0]}: {item['msg']}" for item in errors)
