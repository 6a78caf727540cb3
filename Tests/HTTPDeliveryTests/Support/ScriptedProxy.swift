import Glibc
import Synchronization

/// A proxy on loopback: connects everyone who asks for a tunnel, to whatever host, to one port of this host.
final class ScriptedProxy: Sendable {
  private final class Log: Sendable {
    let requests = Mutex<[ReceivedRequest]>([])
  }

  private let server: ScriptedServer
  private let log: Log

  var url: String { "http://127.0.0.1:\(server.port)" }
  var acceptedCount: Int { server.acceptedCount }
  /// The requests meant for the proxy itself: CONNECTs, and those to be forwarded.
  var requests: [ReceivedRequest] { log.requests.withLock { $0 } }

  /// - Parameters:
  ///   - target: the port on loopback that a tunnel leads to.
  ///   - credentials: what `Proxy-Authorization` must say, if anything.
  ///   - answer: what a request to be forwarded gets.
  init(
    target: Int = 0,
    credentials: String? = nil,
    answer: String = "HTTP/1.1 204 No Content\r\n\r\n"
  ) {
    let log = Log()
    self.log = log
    server = ScriptedServer { peer in
      while let request = peer.readRequest() {
        log.requests.withLock { $0.append(request) }
        guard credentials == nil || request.header("proxy-authorization") == credentials else {
          peer.send("HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
          continue
        }
        guard request.lines[0].hasPrefix("CONNECT ") else {
          peer.send(answer)
          continue
        }
        guard let upstream = peer.connection(to: target) else {
          return peer.send("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        }
        peer.send("HTTP/1.1 200 Connection established\r\n\r\n")
        peer.relay(with: upstream)
        close(upstream)
        return
      }
    }
  }
}

extension Peer {
  /// A socket connected to a port of this host.
  fileprivate func connection(to port: Int) -> Int32? {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    address.sin_port = UInt16(port).bigEndian
    let isConnected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    if !isConnected { Glibc.close(descriptor) }
    return isConnected ? descriptor : nil
  }

  /// Carries bytes to and fro until either side closes.
  fileprivate func relay(with other: Int32) {
    let ends = [(descriptor, other), (other, descriptor)]
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      var events = ends.map { pollfd(fd: $0.0, events: Int16(POLLIN), revents: 0) }
      guard poll(&events, 2, -1) > 0 else { return }
      for (event, (source, sink)) in zip(events, ends) where event.revents != 0 {
        let count = recv(source, &buffer, buffer.count, 0)
        guard count > 0 else { return }
        var sent = 0
        while sent < count {
          let written = buffer[sent..<count].withUnsafeBytes {
            Glibc.send(sink, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
          }
          guard written > 0 else { return }
          sent += written
        }
      }
    }
  }
}
