import Glibc
import Synchronization

@testable import HTTPDelivery

/// Listens where nothing may ever connect: on 127.0.0.1 and ::1. The same port of 127.0.0.2 is free for a server that may
/// be connected to.
final class Canary: Sendable {
  private static let song = "HTTP/1.1 299 Canary\r\nContent-Length: 0\r\n\r\n"

  let port: Int
  private let server: ScriptedServer
  private let neighbour: LoopbackSocket
  private let own = Atomic<Int>(0)

  init() {
    for _ in 0..<100 {
      guard let neighbour = LoopbackSocket.bind("127.0.0.2") else { continue }
      let sockets = ["127.0.0.1", "::1"].map { LoopbackSocket.bind($0, port: neighbour.port) }
      guard let v4 = sockets[0] else {
        close(neighbour.descriptor)
        continue
      }
      self.neighbour = neighbour
      port = neighbour.port
      server = ScriptedServer(on: [v4] + [sockets[1]].compactMap { $0 }) { peer in
        while peer.readRequest() != nil { peer.send(Self.song) }
      }
      return
    }
    fatalError("Canary: no free port")
  }

  /// A server on 127.0.0.2, at the canary's port.
  func neighbour(script: @escaping @Sendable (Peer) -> Void) -> ScriptedServer {
    ScriptedServer(on: [neighbour], script: script)
  }

  /// How many connections have come in on any address, those that nobody has accepted yet included.
  func connections() async throws -> Int {
    // Connections are accepted in their order: once one of our own has been, so has every earlier one.
    try await withClient { client in
      var isAlive = false
      for host in ["127.0.0.1", "[::1]"] {
        guard await client.post("http://\(host):\(port)/").outcome == .response(status: 299) else { continue }
        own.add(1, ordering: .sequentiallyConsistent)
        isAlive = true
      }
      precondition(isAlive, "Canary: is dead")
    }
    return server.acceptedCount - own.load(ordering: .sequentiallyConsistent)
  }
}
