import FlyingFox
import FlyingSocks
import Foundation

/// The connection a request came on, to notice that its client has given up.
///
/// FlyingFox does not read from a connection while its handler runs and does not hand out the socket, so a handler that
/// never answers would hold the connection for ever. The socket is therefore looked up among the process's own
/// descriptors. That is safe because FlyingFox closes the connection only after the handler has returned: as long as
/// the handler looks, the descriptor is this connection's and no other's.
struct ClientConnection {
  private let descriptor: Int32

  /// Nil if the connection is not found, which means that it cannot be watched.
  init?(client: HTTPRequest.Address?, serverPort: UInt16) {
    guard let client else { return nil }
    // Linux has the first, and macOS the second.
    let folders = ["/proc/self/fd", "/dev/fd"]
    let names = folders.lazy.compactMap { try? FileManager.default.contentsOfDirectory(atPath: $0) }.first ?? []
    let found = names.lazy.compactMap { Int32($0) }.first { descriptor in
      let socket = Socket(file: .init(rawValue: descriptor))
      // The client's own end may be in this process too; it has the two addresses the other way round.
      guard let peer = try? socket.remotePeer(), let own = try? socket.sockname() else { return false }
      return HTTPRequest.Address.make(from: peer) == client && own.port == serverPort
    }
    guard let found else { return nil }
    descriptor = found
  }

  /// Whether the client has closed its end or the connection is broken.
  var isClosed: Bool {
    var byte: UInt8 = 0
    let count = recv(descriptor, &byte, 1, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
    return count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
  }

  /// Returns when the client has closed its end; throws `CancellationError` if the receiver stops before.
  func waitUntilClosed() async throws {
    while !isClosed {
      try await Task.sleep(for: .milliseconds(50))
    }
  }
}

extension Socket.Address {
  /// Nil for a socket in the file system.
  var port: UInt16? {
    switch self {
    case .ip4(_, let port), .ip6(_, let port): port
    case .unix: nil
    }
  }
}
