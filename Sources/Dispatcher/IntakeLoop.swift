import DeliveryCore
import HTTPDelivery
import Logging
import OutboxStore
import Postgres

/// Takes new events and waiting deliveries out of the database and sets them off. One thread, one connection: what it was
/// handed and what it knows can thus be compared when a reply was lost.
struct IntakeLoop {
  let desk: Desk
  let engine: any RequestTaker
  /// From then on nothing is taken in; what is held is still compared with the database when that is in doubt.
  let stop: StopSignal
  let end: StopSignal
  let logger: Logger

  func run(_ database: DatabaseLoop) {
    while !end.isSet {
      guard let dispatcher = desk.dispatcher, desk.isInDoubt || !stop.isSet else {
        desk.intakeBell.wait(upTo: .milliseconds(200))
        continue
      }
      let step = desk.isInDoubt ? resync(dispatcher, database) : perform(desk.nextIntake(), dispatcher, database)
      switch step {
      case .done: break
      case .unleased(lost: true): desk.lost(dispatcher)
      case .unleased(lost: false):
        desk.leaseBell.ring()
        desk.intakeBell.wait(upTo: .milliseconds(50))
      case .doubtful, .failed(unknown: true): desk.doubt()
      case .failed(unknown: false): break
      case .refused(let error):
        database.complain(error, about: "the database refuses to hand out deliveries; trying again")
      }
    }
  }

  private func perform(_ action: IntakePlan.Action, _ dispatcher: Int64, _ database: DatabaseLoop)
    -> DatabaseLoop.Step<Void>
  {
    switch action {
    case .wait(let duration), .waitForRoom(_, _, let duration):
      desk.intakeBell.wait(upTo: duration)
      return .done(())
    case .poll:
      return database.step { store throws(PostgresError) in desk.polled(try store.snapshot()) }
    case .watch(let pause, let longest):
      return database.step { store throws(PostgresError) in
        desk.polled(try store.watch(desk.exhaustedAt, every: pause, upTo: longest))
      }
    case .look:
      return database.step { store throws(PostgresError) in
        desk.looked(try store.waiting())
        let busy = desk.busyEndpoints()
        if !busy.isEmpty { try learn(try store.changed(since: busy), store) }
      }
    case .claim(let endpoints, let slots, let floors):
      return database.step { store throws(PostgresError) in
        let claim = try store.claim(
          dispatcher: dispatcher,
          endpoints: endpoints,
          slots: slots,
          floors: floors.map { $0.map(Timestamp.init(microsecondsSince2000:)) },
          resyncs: desk.resyncs
        )
        let held = desk.took(claim, asked: endpoints, slots: slots, dispatcher: dispatcher)
        try send(held, versions: claim.deliveries.map { ($0.endpoint, $0.version) }, store)
      }
    case .cut(let events, let direct, let perEndpoint, let busy, let slots):
      let step = database.step { store throws(PostgresError) in
        let cut = try store.cut(
          dispatcher: dispatcher,
          events: events,
          direct: direct,
          perEndpoint: perEndpoint,
          bytes: IntakePlan.Limits().bytesPerCut,
          busy: busy,
          slots: slots,
          resyncs: desk.resyncs
        )
        let held = desk.took(cut, dispatcher: dispatcher)
        guard let cut else { return }
        try send(held, versions: cut.direct.flatMap { Array(zip($0.endpoints, $0.versions)) }, store)
      }
      // Too much for one statement: thousands of endpoints for each of hundreds of events. Next time fewer.
      if case .failed = step, database.lastFailure?.sqlState == "57014" { desk.cutTookTooLong() }
      return step
    }
  }

  /// If the settings cannot be read now, the deliveries are laid down all the same: they were handed to us, and go back
  /// untried from there.
  private func send(_ held: [Held], versions: [(Int64, Int64)], _ store: any DispatchStore) throws(PostgresError) {
    defer { engine.submit(desk.accept(held)) }
    try learn(desk.unknown(versions.map { (id: $0.0, version: $0.1) }), store)
  }

  private func learn(_ endpoints: [Int64], _ store: any DispatchStore) throws(PostgresError) {
    guard !endpoints.isEmpty else { return }
    for (endpoint, problem) in desk.learned(try store.endpoints(endpoints), asked: endpoints) {
      logger.error(
        "nothing can be sent to an endpoint",
        metadata: ["endpoint": "\(endpoint)", "problem": "\(problem)"]
      )
    }
  }

  private func resync(_ dispatcher: Int64, _ database: DatabaseLoop) -> DatabaseLoop.Step<Void> {
    guard let (number, held) = desk.beginResync() else {
      desk.intakeBell.wait(upTo: .milliseconds(50))
      return .done(())
    }
    return database.step { store throws(PostgresError) in
      let given = try store.resync(
        dispatcher: dispatcher,
        held: held.map(\.key),
        batches: held.map(\.batch),
        number: number
      )
      desk.resynced()
      if given > 0 {
        logger.notice(
          "gave back deliveries that were handed over or recorded in vain when the connection broke",
          metadata: ["count": "\(given)"]
        )
      }
    }
  }
}
