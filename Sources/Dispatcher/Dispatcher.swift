import HTTPDelivery
import Logging
import OutboxStore
import Postgres
import ServiceLifecycle

/// Delivers committed events to their endpoints until it is told to stop. Any number may run against one database, on any
/// hosts.
///
/// Four threads: intake (cut and claim), recorder, lease, and the HTTP engine, which meet at the ``Desk``. A fifth runs
/// transforms, a sixth does maintenance.
package final class Dispatcher: Service {
  private let configuration: DispatcherConfiguration
  private let logger: Logger
  private let desk: Desk
  private let engine: HTTPEngine

  package init(_ configuration: DispatcherConfiguration, logger: Logger) {
    var limits = Desk.Limits()
    limits.capacity = configuration.capacity
    limits.maxInFlight = configuration.maxInFlight
    let desk = Desk(limits: limits, egress: configuration.http.egress, keyring: configuration.keyring)
    self.configuration = configuration
    self.logger = logger
    self.desk = desk
    self.engine = HTTPEngine(configuration: configuration.http) { desk.complete($0) }
  }

  package var status: DispatcherStatus { desk.status }

  /// Runs until graceful shutdown or cancellation, then finishes what is in flight within the grace period, gives the
  /// rest back and releases the lease.
  ///
  /// Throws if the database cannot be reached or dispatched from at the start: a mistyped address should be told, not
  /// tried for ever. Whatever the database refuses later is logged and tried again.
  package func run() async throws {
    try await refuseWrongDatabase()
    let stop = StopSignal()
    let recordStop = StopSignal()
    let end = StopSignal()
    let (stopping, recordEnded) = (StopLatch(), StopLatch())
    let beginToStop = { @Sendable in
      stop.raise()
      stopping.open()
    }
    let intake = IntakeLoop(desk: desk, engine: engine, stop: stop, end: end, logger: logger)
    let record = RecordLoop(desk: desk, stop: recordStop, logger: logger)
    let lease = LeaseLoop(desk: desk, engine: engine, end: end, configuration: configuration, logger: logger)
    let transform = TransformLoop(desk: desk, engine: engine, end: end)
    // Unstructured, so that it can be cancelled alone when all else has come to its end.
    let maintenance = Task { [configuration, logger] in
      await Maintenance(
        database: configuration.database,
        every: configuration.maintainEvery,
        keyring: configuration.keyring,
        logger: logger
      ).run()
    }
    await withTaskCancellationHandler {
      await withGracefulShutdownHandler {
        await withTaskGroup(of: Void.self) { group in
          group.addTask { await self.engine.run() }
          group.addTask {
            // A lease waits for the disk: were its id given out again after a crash, two dispatchers would share it.
            await self.loop("martlet-lease", bell: self.desk.leaseBell, waitsForDisk: true) { lease.run($0) }
          }
          // Everybody's deliveries wait for this loop, so a statement in it that takes long is ended soon: a cut is made
          // smaller then, or gets past the endpoint whose filter took the time.
          group.addTask {
            await self.loop("martlet-intake", bell: self.desk.intakeBell, statementTimeout: .seconds(10)) {
              intake.run($0)
            }
          }
          group.addTask {
            await self.loop(
              "martlet-transform",
              bell: self.desk.preparation.transforms.bell,
              setUp: ["SET default_transaction_read_only = on"],
              statementTimeout: self.configuration.transformTimeout
            ) { transform.run($0) }
          }
          group.addTask {
            await self.loop("martlet-record", bell: self.desk.recordBell) { record.run($0) }
            recordEnded.open()
          }
          group.addTask {
            await stopping.wait()
            await self.drain(recordStop)
            await recordEnded.wait()
            // The lease and the comparison of what is held are needed until the last outcome is recorded.
            end.raise()
            self.desk.intakeBell.ring()
            self.desk.leaseBell.ring()
            self.desk.preparation.transforms.bell.ring()
          }
          await group.waitForAll()
        }
      } onGracefulShutdown: {
        beginToStop()
      }
    } onCancel: {
      beginToStop()
    }
    maintenance.cancel()
    await maintenance.value
    await release()
  }

  /// Lets what is in flight end, within the grace period, and its outcomes be recorded, within a few seconds more.
  private func drain(_ recordStop: StopSignal) async {
    logger.notice("stopping: no new deliveries, waiting for those in flight")
    desk.stop()
    let deadline = desk.now + configuration.gracePeriod
    // An unstructured sleep would end at once in a cancelled task; the shutdown of a cancelled task is graceful too.
    await Task.detached { [desk, engine] in
      while desk.isSending, desk.now < deadline { try? await Task.sleep(for: .milliseconds(10)) }
      engine.shutdown()
      engine.submit(desk.preparation.transforms.shutDown().map { HTTPRequest($0) })
      while desk.isSending || desk.hasOutcomes, desk.now < deadline + .seconds(5) {
        try? await Task.sleep(for: .milliseconds(10))
      }
    }.value
    if desk.hasOutcomes {
      logger.error("stopping though outcomes could not be recorded; those deliveries will be made again")
      recordStop.insist()
    }
    recordStop.raise()
    desk.recordBell.ring()
  }

  /// Releases the lease, best effort: if the database is away, the lease runs out by itself.
  private func release() async {
    guard let dispatcher = desk.dispatcher else { return }
    var database = configuration.database
    database.statementTimeout = .seconds(5)
    let session = Session(database, name: "martlet-release")
    do {
      let given = try await Task.detached {
        try await session.withConnection { try OutboxStore($0).release(dispatcher: dispatcher) }
      }
      .value
      logger.notice("stopped; lease released", metadata: ["given_back": "\(given)"])
    } catch {
      logger.warning("stopped; the lease could not be released and will run out", metadata: ["error": "\(error)"])
    }
  }

  /// Runs a blocking loop on a thread and a session of its own.
  private func loop(
    _ name: String,
    bell: Bell,
    waitsForDisk: Bool = false,
    setUp: [String] = [],
    statementTimeout: Duration? = nil,
    _ body: @escaping @Sendable (DatabaseLoop) -> Void
  ) async {
    var database = configuration.database
    database.applicationName = name
    // The protocol looks again after each lock it takes, whatever the role's or the database's default.
    database.setUp.append("SET default_transaction_isolation = 'read committed'")
    if !configuration.synchronousCommit && !waitsForDisk { database.setUp.append("SET synchronous_commit = off") }
    database.setUp += setUp
    if let statementTimeout { database.statementTimeout = statementTimeout }
    let session = Session(database, name: name)
    let logger = logger
    // Only what `body` throws would be thrown, and it throws nothing.
    try? await session.run { connect in
      withoutActuallyEscaping(connect) { connect in
        // One function rather than a store by itself: the connection may be another each time.
        let store = { () throws(PostgresError) -> any DispatchStore in OutboxStore(try connect()) }
        body(DatabaseLoop(connect: store, bell: bell, logger: logger))
      }
    }
  }

  private func refuseWrongDatabase() async throws {
    let session = Session(configuration.database, name: "martlet-check")
    try await session.withConnection { connection in
      try Migrator(connection).requireCurrent()
      if let problem = try OutboxStore(connection).anchorProblem() { throw DispatcherError.restoredCopy(problem) }
    }
  }
}

package enum DispatcherError: Error, CustomStringConvertible {
  case restoredCopy(String)

  package var description: String {
    switch self {
    case .restoredCopy(let problem):
      """
      Refusing to dispatch: \(problem). Transaction ids of the original mean nothing here, and whoever restored it \
      probably does not want its webhooks sent. If this copy shall send, say from where, as the owner of the schema: \
      SELECT outbox.reanchor('now'); (nothing from before is sent) or SELECT outbox.reanchor('last_cut'); (go on where \
      the original stood).
      """
    }
  }
}

/// Opens once; any number may wait.
final class StopLatch: Sendable {
  private let stream: AsyncStream<Void>
  private let continuation: AsyncStream<Void>.Continuation
  init() { (stream, continuation) = AsyncStream.makeStream() }
  func open() { continuation.finish() }
  func wait() async {
    // Not cancelled with the task: a detached one listens.
    let stream = stream
    await Task.detached { for await _ in stream {} }.value
  }
}
