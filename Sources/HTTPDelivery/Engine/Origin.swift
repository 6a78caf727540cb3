/// A scheme, host and port that requests go to, and the requests that wait for their turn there.
/// Touched by the engine thread alone.
final class Origin {
  let isSecure: Bool
  /// Whether HTTP/2 is offered.
  private(set) var offersHTTP2: Bool
  var gate: OriginGate
  private var waiting: [PendingRequest] = []
  /// Index of the first in `waiting` that has not left yet.
  private var first = 0
  /// No later than the deadline of any request that waits.
  private(set) var earliestDeadline: MonotonicInstant?

  init(isSecure: Bool, offersHTTP2: Bool, maxConnections: Int) {
    self.isSecure = isSecure
    self.offersHTTP2 = offersHTTP2
    gate = OriginGate(mayMultiplex: offersHTTP2, limit: maxConnections)
  }

  func stopOfferingHTTP2() {
    offersHTTP2 = false
    gate.stopMultiplexing()
  }

  var hasWaiting: Bool { first < waiting.count }
  var isIdle: Bool { gate.open == 0 && !hasWaiting }

  func append(_ pending: PendingRequest) {
    waiting.append(pending)
    earliestDeadline = earliestDeadline.map { min($0, pending.deadline) } ?? pending.deadline
  }

  /// The next in line that may start now.
  func popAdmitted() -> PendingRequest? {
    guard hasWaiting, gate.admit(hasWaited: true) != .wait else { return nil }
    defer {
      first += 1
      if !hasWaiting { removeAll() }
    }
    return waiting[first]
  }

  /// Takes out those whose deadline has passed.
  func popExpired(now: MonotonicInstant) -> [PendingRequest] {
    guard let earliestDeadline, earliestDeadline <= now else { return [] }
    let expired = waiting[first...].filter { $0.deadline <= now }
    let rest = waiting[first...].filter { $0.deadline > now }
    removeAll()
    rest.forEach(append)
    return expired
  }

  /// Takes out everyone.
  func popAll() -> [PendingRequest] {
    defer { removeAll() }
    return Array(waiting[first...])
  }

  private func removeAll() {
    waiting.removeAll(keepingCapacity: true)
    first = 0
    earliestDeadline = nil
  }
}

/// A request inside the engine.
struct PendingRequest {
  let request: HTTPRequest
  let arrivedAt: MonotonicInstant
  let deadline: MonotonicInstant

  init(_ request: HTTPRequest, arrivedAt: MonotonicInstant) {
    self.request = request
    self.arrivedAt = arrivedAt
    deadline = arrivedAt.advanced(byMilliseconds: request.timeout.curlMilliseconds)
  }
}
