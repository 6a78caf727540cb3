import Synchronization

/// A receiver that notes when each event's request arrives, on the clock the publisher reads too.
final class ArrivalListener: Sendable {
  /// One for each address.
  let urls: [String]
  private let arrivals: Arrivals
  private let server: LoopbackServer

  /// First arrivals, by the number in the event's payload, in nanoseconds of CLOCK_MONOTONIC.
  private final class Arrivals: Sendable {
    let first = Mutex<[Int: UInt64]>([:])
  }

  init(addresses: [UInt32] = [0x7f00_0001]) throws {
    let arrivals = Arrivals()
    let server = try LoopbackServer(addresses: addresses) { request, began in
      if let number = request.number { arrivals.first.withLock { $0[number] = $0[number] ?? began } }
      return .now(status: "204 No Content")
    }
    self.arrivals = arrivals
    self.server = server
    urls = addresses.map { "http://\(dotted($0)):\(server.port)/hook" }
  }

  var url: String { urls[0] }
  var port: UInt16 { server.port }

  func start() { server.start() }
  func stop() { server.stop() }
  /// Begins anew: numbers may be used again.
  func forget() { arrivals.first.withLock { $0 = [:] } }
  var all: [Int: UInt64] { arrivals.first.withLock { $0 } }
  func arrival(of number: Int) -> UInt64? { arrivals.first.withLock { $0[number] } }
}
