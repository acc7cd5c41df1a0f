"""A TCP proxy on loopback that gives each connection to the next of its servers, and passes on the first request of each alone:
clients that ask the servers in turn, whatever they keep open."""
import socket
import threading


class RoundRobin:
    def __init__(self, ports):
        self.ports, self.turn, self.used, self.incomplete = list(ports), 0, {}, []
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    @property
    def url(self):
        return 'http://127.0.0.1:%d' % self.port

    def next(self):
        with self.lock:
            port = self.ports[self.turn % len(self.ports)]
            self.turn += 1
            self.used[port] = self.used.get(port, 0) + 1
            return port

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        """The request's head gets a Connection: close, so that the server ends the connection after its answer."""
        with client:
            head = b''
            while b'\r\n\r\n' not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            first, rest = head.split(b'\r\n', 1)
            lines, body = rest.split(b'\r\n\r\n', 1)
            kept = [line for line in lines.split(b'\r\n') if not line.lower().startswith(b'connection:')]
            with socket.create_connection(('127.0.0.1', self.next())) as server:
                server.sendall(b'\r\n'.join([first] + kept + [b'Connection: close', b'', b'']) + body)
                threading.Thread(target=self.pass_on, args=(client, server), daemon=True).start()
                self.pass_on(server, client)

    def pass_on(self, source, sink):
        """Both ways; heads of answers come in one piece or their names are not looked at."""
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    return
                if b'X-Kelpie-Complete: false' in data:
                    self.incomplete.append(data.split(b'\r\n\r\n')[0].decode())
                sink.sendall(data)
        except OSError:
            pass   # one side is gone
