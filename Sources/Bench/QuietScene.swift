import EmbeddedPostgres
import Foundation
import Postgres

/// A dispatcher process with nothing to do, and a receiver that notes arrivals.
struct QuietScene: Sendable {
  let bench: BenchScene
  let listener: ArrivalListener
  let database: BenchDatabase
  let dispatcher: DispatcherProcess

  /// One event a transaction.
  func publish(first: Int, count: Int, rate: Int, bodyBytes: Int) async throws -> [Published] {
    let filler = String(repeating: "x", count: max(0, bodyBytes - 100))
    return try await SteadyPublisher(session: database.session, rate: rate).publish(first: first, count: count) {
      try $0.publish($1, type: "order.created", filler: filler)
    }
  }

  func waitForArrival(of number: Int) async throws {
    try await wait(within: .seconds(20), every: .milliseconds(2), for: "the arrival of event \(number)") {
      try await dispatcher.check()
      return listener.arrival(of: number) != nil
    }
  }

  /// The same receiver's share of it all: requests at a steady rate over a raw socket, each when the one before it is
  /// answered. Milliseconds from sending to the first byte's arrival.
  func barePosts(count: Int, rate: Int, bodyBytes: Int) async throws -> [Double] {
    let first = 2_000_000_000
    let sent = try await BarePost(port: listener.port).run(first: first, count: count, rate: rate, bodyBytes: bodyBytes)
    return try sent.enumerated().map { index, sent in
      guard let arrival = listener.arrival(of: first + index) else { throw BenchError("a bare POST did not arrive") }
      return (Double(arrival) - Double(sent)) / 1e6
    }
  }

  /// Processor seconds so far.
  func usage() -> (dispatcher: Double, postgres: Double) { (dispatcher.cpuSeconds, bench.postgresSeconds) }

  func machine(_ version: String) async throws -> Machine { try await bench.machine(version, database) }
}

func withQuietDispatcher<Report>(
  synchronousCommit: Bool,
  _ body: (QuietScene) async throws -> Report
) async throws -> Report {
  let listener = try ArrivalListener()
  listener.start()
  defer { listener.stop() }
  return try await withBenchScene { bench in
    let database = try await BenchDatabase.create("bench", on: bench.server)
    try await database.addEndpoint(listener.url, maxInFlight: 64)
    return try await bench.withDispatchers(on: database, .init(synchronousCommit: synchronousCommit)) { dispatchers in
      let scene = QuietScene(bench: bench, listener: listener, database: database, dispatcher: dispatchers[0])
      // One event through, so that everything stands: lease, connections, prepared statements.
      let warmUp = 1_000_000_000
      _ = try await scene.publish(first: warmUp, count: 1, rate: 1, bodyBytes: 100)
      try await scene.waitForArrival(of: warmUp)
      return try await body(scene)
    }
  }
}
