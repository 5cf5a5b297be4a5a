"""Reads the file of providers: whom to ask, by which routes, at which prices, within which limits and budgets."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from domain.errors.configuration import ConfigurationError
from domain.models.money import KeyBudget, Price, picodollars
from domain.models.spending import EVERYBODY
from infrastructure.orchestrators.endpoint import Endpoint, checked_key
from infrastructure.orchestrators.provider_address import address_problem
from infrastructure.orchestrators.provider_settings import DEFAULT_ROUTE, ModelLimits, ProviderSettings, ProvidersFile
from infrastructure.orchestrators.toml_lines import line_of

__all__ = ["read_providers_file"]

VARIABLE = "CONCLAVE_PROVIDERS_FILE"

_MAX_BYTES = 256 * 1024
_MAX_NAMED = 256
_MAX_CHARACTERS = 256
_MAX_USD = 1_000_000
_MAX_CONNECTIONS = 7200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What may be shown of a variable's name: somebody may have put the key itself in its place.
_SHOWABLE_VARIABLE = re.compile(r"[A-Z]{1,24}(_[A-Z0-9]{1,16}){1,6}|[A-Z]{1,16}")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")

_T = TypeVar("_T")
_Path = tuple[str, ...]


def read_providers_file(
    path: Path, lookup: Callable[[str], str | None], *, model: str | None = None, key_names: Collection[str] = ()
) -> ProvidersFile:
    """The providers in the TOML file at `path`; `lookup` finds environment variables.

    `model` is the one to ask where the file has no route named `default`. Where `key_names` are given, budgets are for these.

    Raises `ConfigurationError` naming file, line, problem and remedy. It repeats no key, and no address that may hold one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        _refuse(path, None, f"it cannot be read ({error.strerror})", "Name a file that this user may read")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        _refuse(path, line, "it is not UTF-8", "Save it as UTF-8")
    if len(content) > _MAX_BYTES:
        _refuse(path, None, f"it has more than {_MAX_BYTES} bytes", "Name the file of providers")
    return _Reader(path, text, lookup).read(model, key_names)


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, text: str, lookup: Callable[[str], str | None]) -> None:
        self._path = path
        self._text = text
        self._lookup = lookup

    def read(self, model: str | None, key_names: Collection[str]) -> ProvidersFile:
        try:
            document = tomllib.loads(self._text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            self._refuse_unreadable(str(error))
        except (RecursionError, ValueError):
            # ValueError comes of a whole number of thousands of digits.
            _refuse(self._path, None, "it is no TOML that can be read", "See docs/providers.md")
        self._only(document, (), ("providers", "routes", "prices", "limits", "budgets"))
        providers = self._each(document, "providers", self._provider)
        if not providers:
            _refuse(self._path, None, "it names no provider", 'Add one: [providers.openai] with base_url = "..."')
        known = ProvidersFile(self._path, providers)
        routes = self._each(document, "routes", lambda at, table: self._route(at, table, known, document["routes"]))
        return ProvidersFile(
            self._path,
            providers,
            self._default(known, routes, model),
            routes,
            self._each(document, "prices", lambda at, table: self._price(at, table, known)),
            self._each(document, "limits", lambda at, table: self._model_limits(at, table, known)),
            self._each(document, "budgets", lambda at, table: self._budget(at, table, key_names)),
        )

    def _default(self, known: ProvidersFile, routes: Mapping[str, object], model: str | None) -> str:
        if DEFAULT_ROUTE in routes:
            return DEFAULT_ROUTE
        if model is not None:
            problem = None if model in routes else known.problem_of(model)
            if problem is not None:
                raise ConfigurationError(
                    variable="CONCLAVE_LLM_MODEL",
                    problem=f"{model!r} {problem}",
                    remedy=f"Name a model of {str(self._path)!r} as provider/model, or one of its routes",
                )
            return model
        only = known.only_model
        if only is None:
            _refuse(
                self._path,
                None,
                "it does not say which model to ask where a member names none",
                'Add [routes.default] with models = ["provider/model"], or set CONCLAVE_LLM_MODEL',
            )
        return only

    def _provider(self, at: _Path, table: Mapping[str, Any]) -> ProviderSettings:
        name = at[-1]
        self._check_name(at, "provider")
        self._only(table, at, ProviderSettings.__dataclass_fields__, hidden=("name", "key"))
        if "base_url" not in table:
            self._refuse(at, "it has no base_url", "Give the address with its /v1")
        models = self._texts((*at, "models"), table["models"], most=_MAX_NAMED) if "models" in table else ()
        limit_name = table.get("limit_name", "max_tokens")
        if limit_name not in {"max_tokens", "max_completion_tokens"}:
            wanted = 'Give "max_tokens" or "max_completion_tokens"'
            self._refuse((*at, "limit_name"), "limit_name is neither of the two that there are", wanted)
        taken: dict[str, Any] = {}
        for key in ("json_schema", "seed", "temperature", "stream"):
            if key in table:
                taken[key] = self._truth((*at, key), table[key])
        for key, most in (
            ("max_concurrency", _MAX_CONNECTIONS),
            ("requests_per_minute", 10**9),
            ("tokens_per_minute", 10**12),
            ("max_bytes_in_memory", 10**12),
            ("max_reply_bytes", 10**9),
        ):
            if key in table:
                taken[key] = self._whole((*at, key), table[key], most=most)
        for key, limit in (("share", 1), ("first_byte_timeout_s", 3600), ("idle_timeout_s", 3600)):
            if key in table:
                taken[key] = float(self._number((*at, key), table[key], most=limit))
        return ProviderSettings(
            name,
            self._base_url((*at, "base_url"), table["base_url"]),
            table.get("api_key_env"),
            self._key((*at, "api_key_env"), table["api_key_env"]) if "api_key_env" in table else None,
            models,
            limit_name=limit_name,
            **taken,
        )

    def _base_url(self, at: _Path, value: object) -> str:
        example = "Give an address like https://host.example/v1"
        if not isinstance(value, str):
            self._refuse(at, "base_url is no text", example)
        if "@" in value.partition("://")[2].partition("/")[0]:
            self._refuse(
                at,
                "base_url holds a user name or a password",
                "Take it out, and name the variable with the key in api_key_env",
            )
        try:
            endpoint = Endpoint.parse(value)
        except ConfigurationError as error:
            self._refuse(at, f"base_url: {error.problem}", example)
        parts = urlsplit(endpoint.base_url)
        try:
            problem = address_problem(parts.scheme, parts.hostname or "")
        except ValueError:
            problem = "its host is no address"
        if problem is not None:
            remedy = "Use https://" if "unencrypted" in problem else "Give the address of the provider"
            self._refuse(at, f"base_url: {problem}", remedy)
        return endpoint.base_url

    def _key(self, at: _Path, variable: object) -> str:
        if not isinstance(variable, str) or not _VARIABLE_NAME.fullmatch(variable):
            self._refuse(
                at,
                "api_key_env is not the name of an environment variable",
                "Put the key into a variable of the environment, and that variable's name here",
            )
        shown = variable if _SHOWABLE_VARIABLE.fullmatch(variable) else "the variable named there"
        value = self._lookup(variable)
        try:
            key = checked_key(value, variable=shown)
        except ConfigurationError as error:
            self._refuse(at, f"{shown} in the environment: {error.problem}", error.remedy)
        if key is None:
            self._refuse(
                at, f"{shown} is not set in the environment", f"Set {shown}, or remove api_key_env if no key is wanted"
            )
        return key

    def _route(
        self, at: _Path, table: Mapping[str, Any], known: ProvidersFile, routes: Mapping[str, Any]
    ) -> tuple[str, ...]:
        self._check_name(at, "route")
        self._only(table, at, ("models",))
        if at[-1] in known.providers:
            self._refuse(at, f"the route {at[-1]!r} is named like a provider", "Give it another name")
        where = (*at, "models")
        models = self._texts(where, table.get("models", []), most=_MAX_NAMED)
        if not models:
            self._refuse(at, f"the route {at[-1]!r} names no models", 'Give models = ["provider/model", ...]')
        for model in models:
            if model in routes:
                self._refuse(where, f"{model!r} is a route itself", "Name the models, as provider/model")
            self._check_model(where, model, known)
        return models

    def _price(self, at: _Path, table: Mapping[str, Any], known: ProvidersFile) -> Price:
        self._check_model(at, at[-1], known)
        names = ("input_usd_per_million", "output_usd_per_million")
        self._only(table, at, names)
        amounts = []
        for name in names:
            if name not in table:
                self._refuse(at, f"{name} is missing", "Give both prices, 0 where it costs nothing")
            amounts.append(self._number((*at, name), table[name], most=_MAX_USD, or_nothing=True))
        return Price.per_million(input_usd=amounts[0], output_usd=amounts[1])

    def _model_limits(self, at: _Path, table: Mapping[str, Any], known: ProvidersFile) -> ModelLimits:
        self._check_model(at, at[-1], known)
        names = tuple(ModelLimits.__dataclass_fields__)
        self._only(table, at, names)
        if not table:
            self._refuse(at, "it sets no limit", f"Give one of {', '.join(names)}")
        return ModelLimits(**{name: self._whole((*at, name), value, most=10**12) for name, value in table.items()})

    def _budget(self, at: _Path, table: Mapping[str, Any], key_names: Collection[str]) -> KeyBudget:
        names = ("usd_per_day", "usd_per_month")
        if key_names and at[-1] != EVERYBODY and at[-1] not in key_names:
            self._refuse(
                at,
                f"there is no API key named {_shown(at[-1])}",
                f'There is {", ".join(key_names)}, and "*" for all others',
            )
        self._only(table, at, names)
        if not table:
            self._refuse(at, "it sets no budget", f"Give one of {', '.join(names)}, or both")
        day, month = (
            picodollars(self._number((*at, name), table[name], most=_MAX_USD)) if name in table else None
            for name in names
        )
        return KeyBudget(day, month)

    def _each(
        self, document: Mapping[str, Any], section: str, read: Callable[[_Path, Mapping[str, Any]], _T]
    ) -> dict[str, _T]:
        tables = document.get(section, {})
        if not isinstance(tables, dict):
            self._refuse((section,), f"{section} is no table", f"Write [{section}.NAME] above its settings")
        if len(tables) > _MAX_NAMED:
            self._refuse((section,), f"{section} holds more than {_MAX_NAMED} entries", "Give fewer")
        found = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                self._refuse((section, name), f"{_shown(name)} is no table", f"Write [{section}.NAME] above it")
            found[name] = read((section, name), table)
        return found

    def _check_name(self, at: _Path, what: str) -> None:
        if not _NAME.fullmatch(at[-1]):
            self._refuse(
                at,
                f"{_shown(at[-1])} cannot name a {what}",
                "Use at most 64 letters, digits, dots, dashes and underscores, no slash",
            )

    def _check_model(self, at: _Path, model: str, known: ProvidersFile) -> None:
        problem = known.problem_of(model)
        if problem is not None:
            self._refuse(at, f"{_shown(model)} {problem}", "Name one of those")

    def _only(self, table: Mapping[str, Any], at: _Path, names: Iterable[str], *, hidden: tuple[str, ...] = ()) -> None:
        known = [name for name in names if name not in hidden]
        for name in table:
            if name not in known:
                what = f"[{'.'.join(at)}] has" if at else "there is"
                self._refuse((*at, name), f"{what} no setting {_shown(name)}", f"There is {', '.join(known)}")

    def _texts(self, at: _Path, value: object, *, most: int) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > most:
            self._refuse(at, f"{at[-1]} is no list of at most {most} texts", 'Write it like ["one", "two"]')
        for number, each in enumerate(value):
            if not each.strip() or not each.isprintable() or each != each.strip() or len(each) > _MAX_CHARACTERS:
                self._refuse(at, f"number {number + 1} in {at[-1]} is no name", "Write each as the provider does")
            if each in value[:number]:
                self._refuse(at, f"{each!r} stands twice in {at[-1]}", "Name each once")
        return tuple(value)

    def _truth(self, at: _Path, value: object) -> bool:
        if not isinstance(value, bool):
            self._refuse(at, f"{at[-1]} is neither true nor false", "Write true or false, without quotes")
        return value

    def _whole(self, at: _Path, value: object, *, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self._refuse(at, f"{at[-1]} is no whole number from 1 to {most}", "Leave it out where there is no limit")
        return value

    def _number(self, at: _Path, value: object, *, most: int, or_nothing: bool = False) -> Decimal:
        number = Decimal("NaN")
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            number = Decimal(value)
        if not number.is_finite() or not 0 <= number <= most or not (or_nothing or number):
            least = "from 0" if or_nothing else "above 0 and"
            self._refuse(at, f"{at[-1]} is no number {least} up to {most}", "Write it like 0.5, without quotes")
        return number

    def _refuse(self, at: _Path, problem: str, remedy: str) -> NoReturn:
        _refuse(self._path, line_of(self._text, at), problem, remedy)

    def _refuse_unreadable(self, complaint: str) -> NoReturn:
        found = _TOML_LINE.search(complaint)
        # A key that stands where none belongs would be repeated by the parser's own words: only what it says of names is kept.
        twice = any(word in complaint for word in ("twice", "overwrite", "mutable", "Duplicate"))
        problem = "the same name stands there twice" if twice else "it is no TOML from there on"
        remedy = "Give each name once" if twice else "Put texts into quotes, and close what was opened"
        last = self._text.count("\n") + 1
        _refuse(self._path, int(found.group(1)) if found else last, problem, remedy)


def _refuse(path: Path, line: int | None, problem: str, remedy: str) -> NoReturn:
    place = f"{str(path)!r}" if line is None else f"{str(path)!r}, line {line}"
    # Without the parser's error, which may hold the whole file.
    raise ConfigurationError(variable=VARIABLE, problem=f"{place}: {problem}", remedy=remedy) from None


def _shown(name: str) -> str:
    return repr(name) if name.isprintable() and len(name) <= _MAX_CHARACTERS else "a name that cannot be shown"
