import HTTPDelivery
import Logging
import OutboxStore
import Postgres
import ServiceLifecycle

/// Delivers committed events to their endpoints until it is told to stop. Any number may run against one database, on any
/// hosts.
///
/// Four threads: intake (cut and claim), recorder, lease, and the HTTP engine, which meet at the ``Desk``.
package final class Dispatcher: Service {
  private let configuration: DispatcherConfiguration
  private let logger: Logger
  private let desk: Desk
  private let engine: HTTPEngine

  package init(_ configuration: DispatcherConfiguration, logger: Logger) {
    var limits = Desk.Limits()
    limits.capacity = configuration.capacity
    limits.maxInFlight = configuration.maxInFlight
    let desk = Desk(limits: limits, egress: configuration.http.egress)
    self.configuration = configuration
    self.logger = logger
    self.desk = desk
    self.engine = HTTPEngine(configuration: configuration.http) { desk.complete($0) }
  }

  package var counters: DispatcherCounters { desk.counters }
  /// The lease, while there is one.
  package var dispatcher: Int64? { desk.dispatcher }

  /// Runs until graceful shutdown or cancellation, then finishes what is in flight within the grace period, gives the
  /// rest back and releases the lease.
  ///
  /// Throws if the database cannot be reached or dispatched from at the start (a mistyped address should be told, not
  /// tried for ever), or later refuses in a way that trying again does not mend. That it goes away later is neither.
  package func run() async throws {
    try await refuseWrongDatabase()
    let intakeStop = StopSignal()
    let recordStop = StopSignal()
    let leaseStop = StopSignal()
    let raiseAll = { @Sendable [desk] in
      intakeStop.raise()
      desk.intakeBell.ring()
    }
    let intake = IntakeLoop(desk: desk, engine: engine, stop: intakeStop, logger: logger)
    let record = RecordLoop(desk: desk, stop: recordStop, logger: logger)
    let lease = LeaseLoop(desk: desk, engine: engine, stop: leaseStop, configuration: configuration, logger: logger)
    let intakeEnded = StopLatch()
    try await withTaskCancellationHandler {
      try await withGracefulShutdownHandler {
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask { await self.engine.run() }
          group.addTask {
            // A lease waits for the disk: were its id given out again after a crash, two dispatchers would share it.
            try await self.loop("martlet-lease", bell: self.desk.leaseBell, waitsForDisk: true) { try lease.run($0) }
          }
          group.addTask { try await self.loop("martlet-record", bell: self.desk.recordBell) { try record.run($0) } }
          group.addTask {
            // Intake ends when it is told to, or by an error; both begin the shutdown.
            defer { intakeEnded.open() }
            try await self.loop("martlet-intake", bell: self.desk.intakeBell) { try intake.run($0) }
          }
          group.addTask {
            await intakeEnded.wait()
            await self.drain(recordStop: recordStop, leaseStop: leaseStop)
          }
          do {
            while try await group.next() != nil {}
          } catch {
            logger.critical(
              "stopping: the database refuses what trying again does not mend",
              metadata: ["error": "\(error)"]
            )
            raiseAll()
            // The others come to an end by themselves; the first error is the one to tell.
            while (try? await group.next()) != nil {}
            throw error
          }
        }
      } onGracefulShutdown: {
        raiseAll()
      }
    } onCancel: {
      raiseAll()
    }
    try await release()
  }

  /// Lets what is in flight end, within the grace period, and its outcomes be recorded.
  private func drain(recordStop: StopSignal, leaseStop: StopSignal) async {
    logger.notice("stopping: no new deliveries, waiting for those in flight")
    desk.stop()
    let deadline = desk.now + configuration.gracePeriod
    // An unstructured sleep would end at once in a cancelled task; the shutdown of a cancelled task is graceful too.
    await Task.detached { [desk, engine] in
      while desk.isSending, desk.now < deadline { try? await Task.sleep(for: .milliseconds(10)) }
      engine.shutdown()
      while desk.isSending || desk.hasOutcomes, desk.now < deadline + .seconds(5) {
        try? await Task.sleep(for: .milliseconds(10))
      }
    }.value
    recordStop.raise()
    if desk.hasOutcomes { recordStop.insist() }
    leaseStop.raise()
    desk.recordBell.ring()
    desk.leaseBell.ring()
  }

  /// Releases the lease, best effort: if the database is away, the lease runs out by itself.
  private func release() async throws {
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
    _ body: @escaping @Sendable (DatabaseLoop) throws -> Void
  ) async throws {
    var database = configuration.database
    database.applicationName = name
    if !configuration.synchronousCommit && !waitsForDisk { database.setUp.append("SET synchronous_commit = off") }
    let session = Session(database, name: name)
    let logger = logger
    try await session.run { connect in
      try withoutActuallyEscaping(connect) { connect in
        try body(DatabaseLoop(connect: connect, bell: bell, logger: logger))
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
