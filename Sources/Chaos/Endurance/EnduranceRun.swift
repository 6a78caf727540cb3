import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Rig

/// Millions of deliveries in one go, with a fault every so often: three publishers as fast as the system takes it, three
/// dispatchers, three endpoints, one of them ordered.
package struct EnduranceRun: Sendable {
  /// It is over after so many, or after that time, whichever comes first.
  package var deliveries = 11_300_000
  package var duration: Duration?
  package var faultEvery = Duration.seconds(60)
  package var seed: UInt64
  /// How the report says that it came to be.
  package var command = ""
  package var tell: @Sendable (String) -> Void = { _ in }

  static let timeoutSeconds = 6
  /// Publishers wait while more deliveries than this are outstanding: it is delivery that is measured.
  static let backlogLimit = 15_000
  /// The database's days of a run, but for those that would be too short to see anything of retention.
  static let days = 20
  static let shortestDay = Duration.seconds(5)
  static let faults: [Fault] = [.kill, .zombie, .terminate, .crash, .databaseNetwork, .receiverNetwork]
  /// With nothing arriving for so long, something is stuck, and the run is over before its time.
  static let longestPause = Duration.seconds(120)
  /// At the end, with nothing arriving for so long, what is missing counts as lost.
  static let patience = Duration.seconds(45)

  package init(seed: UInt64) { self.seed = seed }

  package func run() async throws -> EnduranceReport {
    let logs = try LogDirectory("endurance")
    let keeper = try ChildKeeper(directory: logs.url)
    let result: Result<EnduranceReport, any Error>
    do {
      let clock = try ServerClock()
      defer { clock.remove() }
      result = .success(try await run(clock, keeper, logs.url))
    } catch {
      result = .failure(error)
    }
    await keeper.finish()
    if case .success(let report) = result, report.holds { logs.remove() } else { tell("logs are in \(logs.url.path)") }
    return try result.get()
  }

  private func run(_ clock: ServerClock, _ keeper: ChildKeeper, _ logs: URL) async throws -> EnduranceReport {
    let settings = ["shared_buffers": "256MB", "max_prepared_transactions": "30"]
    let servers = try await Servers(settings: settings, directory: nil, standby: false, prefix: clock.prefix)
    let result: Result<EnduranceReport, any Error>
    do {
      var random = SeededGenerator(seed: seed, stream: 2)
      let tally = Tally(random: SeededGenerator(seed: seed, stream: 3))
      let receiver = try RawReceiver(paths: Tally.paths, recipient: tally, random: &random)
      defer { receiver.stop() }
      let observer = try await prepare(servers, receiver)
      let links = try (0..<Crew.size).map { _ in try Link(to: servers.primary.port) }
      defer { for link in links { link.stop() } }
      let databases = links.enumerated().map { "postgres://\(Scene.role($0))@127.0.0.1:\($1.port)/postgres" }
      let saboteur = Saboteur(
        crew: try Crew(databases: databases, keeper: keeper, logs: logs) { _ in [] },
        servers: servers,
        observer: observer,
        databaseLinks: links,
        arrived: { tally.arrived(since: $0 - Observer.margin) }
      )
      let course = EnduranceCourse(run: self, saboteur: saboteur, receiver: receiver, tally: tally, clock: clock)
      result = .success(try await course.play(keeper, logs))
    } catch {
      result = .failure(error)
    }
    await keeper.finish()
    try? FileManager.default.copyItem(at: servers.primary.logFile, to: logs.appendingPathComponent("postgresql.log"))
    await servers.stop()
    return try result.get()
  }

  private func prepare(_ servers: Servers, _ receiver: RawReceiver) async throws -> Observer {
    let url = servers.connectionString(user: "postgres")
    let session = Session(.init(connectionString: url, statementTimeout: .seconds(600)), name: "observer")
    var observer = Observer(session: session)
    observer.endpoints = try await session.withConnection { connection in
      _ = try Migrator(connection).migrate()
      try connection.execute("CREATE ROLE app LOGIN IN ROLE outbox_publisher")
      for place in 0..<Crew.size {
        try connection.execute("CREATE ROLE \(Scene.role(place)) LOGIN IN ROLE outbox_dispatcher")
      }
      try connection.execute(BulkPublisher.schema)
      try connection.execute(
        """
        UPDATE outbox.setting SET value = '1 day' WHERE name IN ('event_retention', 'attempt_retention');
        SELECT outbox.maintain();
        """
      )
      // Failures are part of the run, so no circuit opens and nothing is given up, however many days it takes.
      let ids = try Tally.paths.enumerated().map { place, path in
        let rows = try connection.query(
          """
          SELECT outbox.add_endpoint($1, secret => $2, ordered => $3, timeout => '\(Self.timeoutSeconds) s', max_in_flight => 64,
            max_attempts => 1000, max_age => '365 days', first_delay => '100 ms', multiplier => 1.5, longest_delay => '1 s',
            failure_threshold => 1000000, failure_rate => NULL, disable_after => NULL)
          """,
          [
            .text("http://127.0.0.1:\(receiver.port)\(path)"), .text(receiver.secret),
            .bool(Tally.ordered.contains(place)),
          ]
        )
        return try rows.required(rows.int64(0, 0), 0)
      }
      try connection.execute("SELECT outbox.stamp_subscriptions()")
      return ids
    }
    return observer
  }
}
