import EmbeddedPostgres
import Foundation
import Postgres

/// A throwaway PostgreSQL, a dispatcher process with nothing to do, and a receiver that notes arrivals.
struct QuietScene: Sendable {
  let listener: ArrivalListener
  let database: BenchDatabase
  let server: EmbeddedPostgres
  let dispatcher: DispatcherProcess

  /// One event a transaction.
  func publish(first: Int, count: Int, rate: Int, bodyBytes: Int) async throws -> [Published] {
    let filler = String(repeating: "x", count: max(0, bodyBytes - 100))
    return try await SteadyPublisher(session: database.session, rate: rate).publish(first: first, count: count) {
      try $0.publish($1, type: "order.created", filler: filler)
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
        .init(synchronousCommit: synchronousCommit),
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
