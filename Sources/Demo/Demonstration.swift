import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Receiver
import Rig
import WebhookSignature

/// Everything at once, on a throwaway PostgreSQL: an application that publishes, endpoints that misbehave, two
/// dispatchers of which one is killed, and at the end the proof that nothing went missing.
package struct Demonstration: Sendable {
  package struct Options: Sendable {
    /// JSON Lines of events; nil for the project's own sample set.
    package var eventFile: String?
    package var count: Int
    package var seed: UInt64
    /// Waits while somebody looks around in the database at the end; nil if nobody wants to.
    package var waitForEnter: (@Sendable () async -> Void)?

    package init(eventFile: String?, count: Int, seed: UInt64, waitForEnter: (@Sendable () async -> Void)? = nil) {
      self.eventFile = eventFile
      self.count = count
      self.seed = seed
      self.waitForEnter = waitForEnter
    }
  }

  let options: Options
  let screen = Screen()

  package init(_ options: Options) { self.options = options }

  /// Runs the demo and cleans up, also after a cancellation. Returns whether all accounts agree.
  ///
  /// Nothing of it outlives this process: the dispatchers and PostgreSQL each have a keeper.
  package func run() async throws -> Bool {
    let file = try options.eventFile.map { try EventFile(path: $0) } ?? EventFile.sample()
    let fileOption = options.eventFile.map { " --events \($0)" } ?? ""
    screen.say("martlet demo\(fileOption) --count \(options.count) --seed \(options.seed)")
    let logs = try LogDirectory("demo")
    do {
      let agrees = try await withEmbeddedPostgres(.init(fsync: true)) { server in
        do {
          let agrees = try await run(file, server, logs)
          if !agrees { logs.keep(server.logFile, as: "postgresql.log") }
          return agrees
        } catch {
          logs.keep(server.logFile, as: "postgresql.log")
          throw error
        }
      }
      if agrees { logs.remove() } else { screen.say("Logs: \(logs.url.path)") }
      return agrees
    } catch {
      screen.clearStatus()
      if Task.isCancelled { logs.remove() } else { screen.say("Logs: \(logs.url.path)") }
      throw error
    }
  }

  private func run(_ file: EventFile, _ server: EmbeddedPostgres, _ logs: LogDirectory) async throws -> Bool {
    let database = Session(ConnectionConfiguration(connectionString: server.connectionString), name: "demo")
    try await database.withConnection { connection in
      _ = try Migrator(connection).migrate()
      try connection.execute(ShopClient.schema)
    }
    screen.tell("PostgreSQL \(server.version) is up on port \(server.port), thrown away at the end; schema migrated")

    let keeper = try ChildKeeper(directory: logs.url)
    let result: Result<Bool, any Error>
    do {
      result = .success(
        try await withEndpoints(file, database) { endpoints in
          let stage = Stage(
            screen: screen,
            database: database,
            server: server,
            file: file,
            options: options,
            endpoints: endpoints
          )
          return try await stage.run(logs: logs.url, keeper: keeper)
        }
      )
    } catch {
      result = .failure(error)
    }
    await keeper.finish()
    if case .success = result, let waitForEnter = options.waitForEnter {
      screen.say("\nPostgreSQL is still running; to look around:\n\n  psql \(server.connectionString)\n")
      screen.say("Press Enter to stop and remove it.")
      await waitForEnter()
    }
    return try result.get()
  }

  /// Starts a receiver for each endpoint that has one, subscribes them all, and stops the receivers after `body`.
  private func withEndpoints(
    _ file: EventFile,
    _ database: Session,
    _ body: @escaping @Sendable (Endpoints) async throws -> Bool
  ) async throws -> Bool {
    let closedPort = try ClosedPort()
    let bodies = Bodies()
    let agrees = try await withThrowingTaskGroup(of: Void.self) { group in
      var endpoints = Endpoints(bodies: bodies)
      for target in Target.allCases {
        let secret = Target.newSecret()
        let inbox = Inbox(target, bodies: bodies, random: SeededGenerator(seed: options.seed, stream: target.rawValue))
        var port = closedPort.number
        if target != .partner {
          let receiver = Receiver(
            port: 0,
            verifier: WebhookVerifier(keys: [try VerificationKey(parsing: secret)]),
            handler: { inbox.reply(to: $0) }
          )
          group.addTask { try await receiver.run() }
          port = try await receiver.waitUntilListening()
        }
        let types = target == .partner ? file.mostFrequentType : "*"
        let url = "http://127.0.0.1:\(port)/\(target.name)"
        let id = try await database.withConnection { connection in
          let rows = try connection.query(
            "SELECT outbox.add_endpoint($1, ARRAY[$2], secret => $3, \(target.settings))",
            [.text(url), .text(types), .text(secret)]
          )
          return try rows.required(rows.int64(0, 0), 0)
        }
        endpoints.all.append(Endpoints.Entry(target: target, id: id, types: types, inbox: inbox))
      }
      // From here on conservation can be proved for all of them.
      try await database.withConnection { try $0.execute("SELECT outbox.stamp_subscriptions()") }
      let agrees = try await body(endpoints)
      group.cancelAll()
      return agrees
    }
    withExtendedLifetime(closedPort) {}
    return agrees
  }
}
