import HTTPDelivery
import Logging
import OutboxStore
import Postgres

/// Keeps the lease, from a connection of its own, so that neither slow HTTP nor a slow statement costs it, and takes over
/// from dispatchers that lost theirs.
struct LeaseLoop {
  let desk: Desk
  let engine: any RequestTaker
  let end: StopSignal
  let configuration: DispatcherConfiguration
  let logger: Logger

  func run(_ database: DatabaseLoop) {
    while !end.isSet {
      if let dispatcher = keepLease(database) { recover(dispatcher, database) }
      desk.leaseBell.wait(upTo: configuration.lease / 5)
    }
  }

  /// Renews the lease, or gets a new one. Returns it if it is certainly ours now.
  private func keepLease(_ database: DatabaseLoop) -> Int64? {
    // What we may rely on counts from before the call: the server's count begins later.
    let began = desk.now
    if let dispatcher = desk.dispatcher {
      let step = database.step { store throws(PostgresError) in
        desk.learned(serverTime: try store.serverTime())
        return try store.heartbeat(dispatcher: dispatcher, lease: configuration.lease)
      }
      switch step {
      case .done(true):
        if desk.granted(dispatcher, until: began + configuration.lease) { engine.submit(desk.resumeDepartures()) }
        return dispatcher
      case .done(false):
        logger.warning("the lease is gone: another dispatcher took over", metadata: ["dispatcher": "\(dispatcher)"])
        desk.lost(dispatcher)
      case .refused(let error): database.complain(error, about: "the database refuses to renew the lease; trying again")
      case .unleased, .doubtful, .failed: break
      }
      return nil
    }
    let step = database.step { store throws(PostgresError) in
      desk.learned(serverTime: try store.serverTime())
      return try store.register(
        name: configuration.name,
        host: Host.name,
        pid: Host.pid,
        version: martletVersion,
        lease: configuration.lease
      )
    }
    switch step {
    case .done(let dispatcher):
      logger.notice("lease granted", metadata: ["dispatcher": "\(dispatcher)", "name": "\(configuration.name)"])
      _ = desk.granted(dispatcher, until: began + configuration.lease)
      return dispatcher
    case .refused(let error): database.complain(error, about: "the database refuses to grant a lease; trying again")
    case .unleased, .doubtful, .failed: break
    }
    return nil
  }

  private func recover(_ dispatcher: Int64, _ database: DatabaseLoop) {
    let step = database.step { store throws(PostgresError) in
      try store.recover(caller: dispatcher, settle: configuration.lease)
    }
    switch step {
    case .done(let recovered):
      for lost in recovered {
        logger.warning(
          "took over from a dispatcher whose lease ran out",
          metadata: ["dispatcher": "\(lost.dispatcher)", "name": "\(lost.name)", "deliveries": "\(lost.deliveries)"]
        )
        desk.withState { $0.counters.recovered += 1 }
      }
    case .refused(let error):
      // Without the pause that a complaint makes: the next heartbeat must not wait for it.
      logger.critical("the database refuses to take over from a lost dispatcher", metadata: ["error": "\(error)"])
    // Who has nothing to do takes no other step that would tell of a crash, and would go on holding what it took back.
    case .doubtful: desk.doubt()
    case .unleased, .failed: break
    }
  }
}
