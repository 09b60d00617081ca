# moto's server as an application for gunicorn: the service is told by the host that a request names. One that is started
# with SPOIL in its environment answers what the file of that name says (a status, a line end, a body) while there is one.
import os

from moto.server import DomainDispatcherApplication, create_backend_app

moto = DomainDispatcherApplication(create_backend_app)
spoil = os.environ.get("SPOIL")


def spoiled(environ, start_response):
    try:
        with open(spoil, "rb") as file:
            status, body = file.read().split(b"\n", 1)
    except FileNotFoundError:
        return moto(environ, start_response)
    kind = ("content-type", "application/x-amz-json-1.1")
    start_response(status.decode() + " Spoiled", [kind, ("content-length", str(len(body)))])
    return [body]


app = spoiled if spoil else moto
