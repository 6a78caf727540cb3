import EmbeddedPostgres
import Foundation
import Postgres

/// A throwaway PostgreSQL, a dispatcher process with nothing to do, and a receiver that notes arrivals.
struct QuietScene: Sendable {
  let listener: ArrivalListener
  let database: BenchDatabase
  let server: EmbeddedPostgres
  let dispatcher: DispatcherProcess

  struct Published {
    var number: Int
    /// When it should have been published. That it was not is the machine's doing, and says how much of the rest is.
    var due: UInt64
    /// Whether the one before it was done by then.
    var isOnTime: Bool
    /// Just before the statement was sent, and just after its commit was confirmed.
    var began: UInt64
    var committed: UInt64
  }

  /// Publishes at fixed moments, whatever the last one took: a slow commit must not thin out the load behind it.
  func publish(first: Int, count: Int, rate: Int, bodyBytes: Int) async throws -> [Published] {
    try await database.session.withConnection { connection in
      var published: [Published] = []
      published.reserveCapacity(count)
      let origin = monotonicNanoseconds()
      var isOnTime = true
      let filler = String(repeating: "x", count: max(0, bodyBytes - 100))
      for index in 0..<count {
        let due = origin + UInt64(index) * 1_000_000_000 / UInt64(rate)
        var until = timespec(tv_sec: Int(due / 1_000_000_000), tv_nsec: Int(due % 1_000_000_000))
        while clock_nanosleep(CLOCK_MONOTONIC, Int32(TIMER_ABSTIME), &until, nil) == EINTR {}
        let began = monotonicNanoseconds()
        _ = try connection.query(
          "INSERT INTO outbox.event (type, payload) VALUES ('order.created', $1)",
          [.jsonb(#"{"n": \#(first + index), "note": "\#(filler)"}"#)]
        )
        let committed = monotonicNanoseconds()
        published.append(
          Published(number: first + index, due: due, isOnTime: isOnTime, began: began, committed: committed)
        )
        isOnTime = committed < due + 1_000_000_000 / UInt64(rate)
      }
      return published
    }
  }

  func waitForArrival(of number: Int) async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    while listener.arrival(of: number) == nil {
      try await dispatcher.check()
      guard ContinuousClock.now < deadline else { throw BenchError("event \(number) did not arrive within 20 s") }
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  /// Processor seconds so far.
  func usage() -> (dispatcher: Double, postgres: Double) {
    (dispatcher.cpuSeconds, server.pid.map(ProcessUsage.treeSeconds) ?? .nan)
  }

  func machine(_ version: String) async throws -> Machine {
    Machine(version: version, postgres: server.version, nginx: nil, settings: try await database.settings())
  }
}

func withQuietDispatcher<Report>(
  synchronousCommit: Bool,
  _ body: (QuietScene) async throws -> Report
) async throws -> Report {
  try await withTemporaryDirectory { directory in
    let launcher = ChildLauncher(directory: directory)
    let listener = try ArrivalListener()
    listener.start()
    defer { listener.stop() }
    let options = EmbeddedPostgres.Options(settings: BenchDatabase.settings, fsync: true)
    return try await withEmbeddedPostgres(options) { server in
      let database = try await BenchDatabase.create("bench", on: server)
      try await database.addEndpoint(listener.url, maxInFlight: 64)
      let dispatcher = try await DispatcherProcess.start(
        database,
        synchronousCommit: synchronousCommit,
        launcher: launcher
      )
      let scene = QuietScene(listener: listener, database: database, server: server, dispatcher: dispatcher)
      let report: Report
      do {
        // One event through, so that everything stands: lease, connections, prepared statements.
        let warmUp = 1_000_000_000
        _ = try await scene.publish(first: warmUp, count: 1, rate: 1, bodyBytes: 100)
        try await scene.waitForArrival(of: warmUp)
        report = try await body(scene)
      } catch {
        try? await dispatcher.stop()
        throw error
      }
      try await dispatcher.stop()
      return report
    }
  }
}
