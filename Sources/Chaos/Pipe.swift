import Foundation

/// One connection through a ``Link``: two sockets and what is on the way between them. Used by the link's thread alone.
final class Pipe {
  /// One direction.
  private struct Flow {
    var waiting: [(bytes: [UInt8], due: ContinuousClock.Instant)] = []
    /// No more will come from this side.
    var hasEnded = false
    var passedOnEnd = false

    var isDue: Bool { waiting.first.map { $0.due <= .now } ?? false }
    /// So much may be on the way; then the sender has to wait, as with any network.
    var isFull: Bool { waiting.count >= 64 }
  }

  private let client: Int32
  private let server: Int32
  private var toServer = Flow()
  private var toClient = Flow()
  private(set) var isClosed = false
  /// Whether the last thing that passed was an answer, or nothing has passed yet: what comes next is a new request.
  private var isIdle = true

  /// nil if the target cannot be connected to; the client's connection is closed then.
  init?(client: Int32, target: UInt16) {
    let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    // On loopback this returns at once, whatever it returns.
    guard server >= 0, withLoopback(target, { connect(server, $0, $1) }) == 0 else {
      if server >= 0 { _ = Foundation.close(server) }
      _ = Foundation.close(client)
      return nil
    }
    self.client = client
    self.server = server
    for descriptor in [client, server] {
      var yes: Int32 = 1
      setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
      _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
  }

  func interests(isSilent: Bool) -> [pollfd] {
    if isSilent { return [pollfd(fd: -1, events: 0, revents: 0), pollfd(fd: -1, events: 0, revents: 0)] }
    func interest(_ descriptor: Int32, _ incoming: Flow, _ outgoing: Flow) -> pollfd {
      var events: Int32 = 0
      if !incoming.hasEnded, !incoming.isFull { events |= POLLIN }
      if outgoing.isDue { events |= POLLOUT }
      return pollfd(fd: events == 0 ? -1 : descriptor, events: Int16(events), revents: 0)
    }
    return [interest(client, toServer, toClient), interest(server, toClient, toServer)]
  }

  /// Reads what has come and sends what is due.
  func move(_ clientEvents: Int16, _ serverEvents: Int16, _ delay: Duration, _ closeShare: Double) {
    let readable = Int16(POLLIN) | Int16(POLLHUP) | Int16(POLLERR)
    if clientEvents & readable != 0 {
      let isNew = isIdle
      read(client, &toServer, delay)
      if isNew, !toServer.waiting.isEmpty {
        isIdle = false
        if closeShare > 0, Double.random(in: 0..<1) < closeShare { return close(reset: false) }
      }
    }
    if !isClosed, serverEvents & readable != 0 {
      read(server, &toClient, delay)
      isIdle = true
    }
    if !isClosed { write(&toServer, to: server) }
    if !isClosed { write(&toClient, to: client) }
    if !isClosed, toServer.passedOnEnd, toClient.passedOnEnd { close(reset: false) }
  }

  func close(reset: Bool) {
    guard !isClosed else { return }
    isClosed = true
    for descriptor in [client, server] {
      if reset {
        var hard = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &hard, socklen_t(MemoryLayout<linger>.size))
      }
      _ = Foundation.close(descriptor)
    }
  }

  private func read(_ descriptor: Int32, _ flow: inout Flow, _ delay: Duration) {
    let (count, bytes) = withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 1) { buffer in
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      return (count, count > 0 ? Array(buffer[..<count]) : [])
    }
    if count > 0 {
      flow.waiting.append((bytes, .now + delay))
    } else if count == 0 {
      flow.hasEnded = true
    } else if errno != EAGAIN, errno != EINTR {
      close(reset: true)
    }
  }

  private func write(_ flow: inout Flow, to descriptor: Int32) {
    while flow.isDue {
      let bytes = flow.waiting[0].bytes
      let count = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
      if count < 0 {
        if errno != EAGAIN, errno != EINTR { close(reset: true) }
        return
      }
      if count < bytes.count {
        flow.waiting[0].bytes.removeFirst(count)
        return
      }
      flow.waiting.removeFirst()
    }
    if flow.hasEnded, flow.waiting.isEmpty, !flow.passedOnEnd {
      flow.passedOnEnd = true
      _ = shutdown(descriptor, Int32(SHUT_WR))
    }
  }
}
