# moto's server as an application for gunicorn: the service is told by the host that a request names.
from moto.server import DomainDispatcherApplication, create_backend_app

app = DomainDispatcherApplication(create_backend_app)
