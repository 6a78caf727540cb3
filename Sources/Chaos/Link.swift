import EmbeddedPostgres
import Foundation
import Synchronization

/// A stretch of network that can fail: a TCP proxy on loopback, on one thread.
final class Link: Sendable {
  enum Weather: Sendable, Equatable {
    case fair
    /// What comes is passed on this much later.
    case slow(milliseconds: Int)
    /// Nothing is passed on, and nobody is told.
    case silent
    /// New connections are closed at once.
    case refusing
  }

  struct State: Sendable {
    var weather = Weather.fair
    var target: UInt16
    /// Ends all connections: politely, or with a reset.
    var cut: (all: Bool, reset: Bool) = (false, false)
    /// The share of requests that meet a closed connection instead of the receiver.
    var closeShare = 0.0
    var isStopped = false
  }

  let port: UInt16
  private let listener: Int32
  private let state: Mutex<State>

  init(to target: UInt16) throws {
    port = try FreePort.find()
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    state = Mutex(State(target: target))
    var yes: Int32 = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    let descriptor = listener
    guard listener >= 0, withLoopback(port, { bind(descriptor, $0, $1) }) == 0, listen(listener, 512) == 0 else {
      throw ChaosError("no socket for a proxy: \(String(cString: strerror(errno)))")
    }
    Thread.detachNewThread { [self] in serve() }
  }

  func become(_ weather: Weather) { state.withLock { $0.weather = weather } }
  func cut(reset: Bool) { state.withLock { $0.cut = (true, reset) } }
  func lead(to target: UInt16) { state.withLock { $0.target = target } }
  func close(share: Double) { state.withLock { $0.closeShare = share } }
  func stop() { state.withLock { $0.isStopped = true } }

  private func serve() {
    var pipes: [Pipe] = []
    defer {
      for pipe in pipes { pipe.close(reset: false) }
      _ = Foundation.close(listener)
    }
    while true {
      let state = state.withLock { state in
        defer { state.cut = (false, false) }
        return state
      }
      if state.isStopped { return }
      if state.cut.all {
        for pipe in pipes { pipe.close(reset: state.cut.reset) }
        pipes = []
      }
      var polled = [pollfd(fd: listener, events: Int16(POLLIN), revents: 0)]
      let isSilent = state.weather == .silent
      for pipe in pipes { polled += pipe.interests(isSilent: isSilent) }
      guard poll(&polled, nfds_t(polled.count), 5) >= 0 else { continue }
      if !isSilent {
        let delay: Duration =
          if case .slow(let milliseconds) = state.weather { .milliseconds(milliseconds) } else { .zero }
        for (index, pipe) in pipes.enumerated() {
          pipe.move(polled[1 + 2 * index].revents, polled[2 + 2 * index].revents, delay, state.closeShare)
        }
        pipes.removeAll { $0.isClosed }
      }
      if polled[0].revents != 0 {
        let client = accept(listener, nil, nil)
        guard client >= 0 else { continue }
        if state.weather == .refusing {
          _ = Foundation.close(client)
        } else if let pipe = Pipe(client: client, target: state.target) {
          pipes.append(pipe)
        }
      }
    }
  }
}

/// Calls `body` with the socket address of a port of 127.0.0.1.
func withLoopback<Result>(_ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = in_addr_t(UInt32(0x7f00_0001).bigEndian)
  return withUnsafePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
  }
}
