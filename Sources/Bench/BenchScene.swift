import EmbeddedPostgres
import Foundation

/// What every benchmark needs: a throwaway PostgreSQL that is as durable as in production, and a directory and a launcher
/// for other processes.
struct BenchScene: Sendable {
  let server: EmbeddedPostgres
  let directory: URL
  let launcher: ChildLauncher

  /// Processor seconds of PostgreSQL, all processes, so far.
  var postgresSeconds: Double { server.pid.map(ProcessUsage.treeSeconds) ?? .nan }

  func machine(_ version: String, _ database: BenchDatabase, nginx: Nginx? = nil) async throws -> Machine {
    Machine(
      version: version,
      postgres: server.version,
      nginx: nginx?.version,
      settings: try await database.settings()
    )
  }

  /// Runs `body` beside dispatchers on that database; they are gone after it, however it ends.
  func withDispatchers<Value>(
    _ count: Int = 1,
    on database: BenchDatabase,
    _ options: DispatcherProcess.Options = .init(),
    _ body: ([DispatcherProcess]) async throws -> Value
  ) async throws -> Value {
    var dispatchers: [DispatcherProcess] = []
    do {
      for _ in 0..<count {
        dispatchers.append(try await .start(database, options, launcher: launcher))
      }
      let value = try await body(dispatchers)
      for dispatcher in dispatchers { try await dispatcher.stop() }
      return value
    } catch {
      for dispatcher in dispatchers { try? await dispatcher.stop() }
      throw error
    }
  }

  func withNginx<Value>(_ body: (Nginx) async throws -> Value) async throws -> Value {
    let nginx = try await Nginx.start(in: directory, launcher: launcher)
    do {
      let value = try await body(nginx)
      try await nginx.stop()
      return value
    } catch {
      try? await nginx.stop()
      throw error
    }
  }
}

/// - Parameter settings: of PostgreSQL, beside those of every benchmark.
func withBenchScene<Value>(
  settings: [String: String] = [:],
  _ body: (BenchScene) async throws -> Value
) async throws -> Value {
  try await withTemporaryDirectory { directory in
    let launcher = ChildLauncher(directory: directory)
    let all = BenchDatabase.settings.merging(settings) { _, ours in ours }
    return try await withEmbeddedPostgres(EmbeddedPostgres.Options(settings: all, fsync: true)) { server in
      try await body(BenchScene(server: server, directory: directory, launcher: launcher))
    }
  }
}

/// Asks again and again until it is so.
func wait(
  within limit: Duration,
  every pause: Duration = .milliseconds(20),
  for what: String,
  until isDone: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !isDone() {
    guard ContinuousClock.now < deadline else { throw BenchError("\(what): not within \(limit)") }
    try await Task.sleep(for: pause)
  }
}
