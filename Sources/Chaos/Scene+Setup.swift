import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Rig

extension Scene {
  /// Sets everything up, plays, and clears away.
  static func run(_ fault: Fault, rounds: Int, seed: UInt64, logs: URL) async throws -> Outcome {
    let keeper = try ChildKeeper(directory: logs)
    let disk = fault == .diskFull ? try await SmallDisk(logs: logs) : nil
    if fault == .diskFull, disk == nil { throw NotMeasured(reason: "a small file system cannot be mounted") }
    var settings = ["max_prepared_transactions": "30", "max_connections": fault == .connections ? "50" : "100"]
    if disk != nil { settings.merge(["max_wal_size": "64MB", "min_wal_size": "32MB"]) { $1 } }
    let servers: Servers
    do {
      servers = try await Servers(settings: settings, directory: disk?.directory, standby: fault == .failover)
    } catch {
      await disk?.remove()
      throw error
    }
    let result: Swift.Result<Outcome, any Error>
    do {
      var random = SeededGenerator(seed: seed, stream: 2)
      let mailbox = Mailbox(random: SeededGenerator(seed: seed, stream: 3))
      let receiver = try RawReceiver(paths: Mailbox.paths, recipient: mailbox, random: &random)
      defer { receiver.stop() }
      let scene = try await prepare(fault, servers, mailbox, receiver, keeper, disk, seed: seed, logs: logs)
      defer { for link in scene.databaseLinks + [scene.receiverLink] { link.stop() } }
      result = .success(try await scene.play(rounds: rounds))
    } catch {
      result = .failure(error)
    }
    await keeper.finish()
    try? FileManager.default.copyItem(
      at: servers.primary.logFile,
      to: logs.appendingPathComponent("postgresql-\(fault.rawValue).log")
    )
    await servers.stop()
    await disk?.remove()
    return try result.get()
  }

  private static func prepare(
    _ fault: Fault,
    _ servers: Servers,
    _ mailbox: Mailbox,
    _ receiver: RawReceiver,
    _ keeper: ChildKeeper,
    _ disk: SmallDisk?,
    seed: UInt64,
    logs: URL
  ) async throws -> Scene {
    let session = Session(.init(connectionString: servers.connectionString(user: "postgres")), name: "observer")
    let receiverLink = try Link(to: receiver.port)
    receiverLink.close(share: 0.002)
    var observer = Observer(session: session)
    observer.endpoints = try await session.withConnection { connection in
      _ = try Migrator(connection).migrate()
      try connection.execute("CREATE ROLE app LOGIN IN ROLE outbox_publisher")
      for place in 0..<Crew.size {
        try connection.execute("CREATE ROLE \(role(place)) LOGIN IN ROLE outbox_dispatcher")
      }
      try connection.execute(Publisher.schema)
      return try addEndpoints(
        connection,
        port: receiverLink.port,
        secret: receiver.secret,
        timeoutSeconds: timeoutSeconds(fault)
      )
    }
    var urls = (0..<Crew.size).map { servers.connectionString(user: role($0)) }
    var links: [Link] = []
    var pooler: Pooler?
    switch fault {
    case .databaseNetwork, .mixed:
      links = try urls.map { _ in try Link(to: servers.primary.port) }
      urls = links.enumerated().map { "postgres://\(role($0))@127.0.0.1:\($1.port)/postgres" }
    case .pooler:
      guard let program = Pooler.program else { throw ChaosError("pgbouncer is not installed") }
      let made = try Pooler(
        program: program,
        server: servers.primary,
        user: role(0),
        serverConnections: 8,
        directory: servers.primary.directory
      )
      try made.start { try keeper.start($0, log: $1) }
      urls = urls.map { _ in made.connectionString }
      pooler = made
    default: break
    }
    let clocks = fault == .clock ? try HostClock.library.map { try Clocks(library: $0, directory: logs) } : nil
    return Scene(
      fault: fault,
      servers: servers,
      crew: try Crew(databases: urls, keeper: keeper, logs: logs) { clocks?.prefix($0) ?? [] },
      keeper: keeper,
      mailbox: mailbox,
      observer: observer,
      receiverLink: receiverLink,
      databaseLinks: links,
      pooler: pooler,
      clocks: clocks,
      disk: disk,
      logs: logs,
      seed: seed
    )
  }

  /// Nothing is given up for want of an answer, unless that is what the scene is about.
  static func timeoutSeconds(_ fault: Fault) -> Int { fault == .receiverNetwork || fault == .mixed ? 6 : 30 }

  /// A role for each dispatcher, so that its sessions can be told from others'.
  static func role(_ place: Int) -> String { "dispatcher\(place)" }

  /// Failures are part of the scene, so no circuit opens; retries are quick, so that the trial is.
  private static func addEndpoints(
    _ connection: Connection,
    port: UInt16,
    secret: String,
    timeoutSeconds: Int
  ) throws -> [Int64] {
    let ids = try Mailbox.paths.enumerated().map { place, path in
      let rows = try connection.query(
        """
        SELECT outbox.add_endpoint($1, secret => $2, ordered => $3, timeout => make_interval(secs => $4), max_attempts => 1000,
          first_delay => '100 ms', multiplier => 1.5, longest_delay => '1 s', failure_threshold => 1000000,
          failure_rate => NULL)
        """,
        [
          .text("http://127.0.0.1:\(port)\(path)"), .text(secret), .bool(Mailbox.ordered.contains(place)),
          .float8(Double(timeoutSeconds)),
        ]
      )
      return try rows.required(rows.int64(0, 0), 0)
    }
    try connection.execute("SELECT outbox.stamp_subscriptions()")
    return ids
  }
}
