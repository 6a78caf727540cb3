import FlyingSocks
import Foundation

/// FlyingFox's socket pool, with Nagle's algorithm switched off on every socket that passes through.
///
/// FlyingFox writes the head and the body of a response separately. The body then waits until the client has
/// acknowledged the head, which a client that delays its acknowledgements does after 40 ms: every answer with a body
/// would take that long. FlyingFox has no setting for it, but waits for each of its sockets here, the listening one
/// first, and connections inherit the setting from that.
struct NoDelayPool<Base: AsyncSocketPool>: AsyncSocketPool {
  var base: Base

  func prepare() async throws {
    try await base.prepare()
  }

  func run() async throws {
    try await base.run()
  }

  func suspendSocket(_ socket: Socket, untilReadyFor events: Socket.Events) async throws {
    // Again at every wait, because remembering which sockets have it would cost more than the call. If it fails, the
    // answer is late and nothing worse.
    try? socket.setValue(true, for: BoolSocketOption(level: CInt(IPPROTO_TCP), name: TCP_NODELAY))
    try await base.suspendSocket(socket, untilReadyFor: events)
  }
}
