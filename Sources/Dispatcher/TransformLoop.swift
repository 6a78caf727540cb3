import HTTPDelivery
import OutboxStore
import Postgres

/// Makes the bodies that endpoints have transforms for, one call a time, on a connection of its own that can write nothing.
/// Whatever is wrong with a function, how long it takes included, is a failure of the delivery it was called for.
struct TransformLoop {
  let desk: Desk
  let engine: HTTPEngine
  let end: StopSignal

  /// Characters kept of what a function says when it fails, as `outbox.note_filter_faults` keeps them of a filter.
  private static let longestError = 1000

  /// Sessions that may break while a function is called for one delivery.
  private static let mostSessions = 3

  func run(_ database: DatabaseLoop) {
    while !end.isSet {
      guard let departure = desk.preparation.transforms.next() else {
        desk.preparation.transforms.bell.wait(upTo: .milliseconds(200))
        continue
      }
      let result = body(for: departure, database)
      desk.preparation.transforms.done(departure)
      switch result {
      case .success(let body): engine.submit(desk.preparation.requests(for: departure, body: body, at: desk.now))
      case .failure(let failure): engine.submit(desk.complete([HTTPCompletion(departure, failure)]))
      }
    }
  }

  /// As long as PostgreSQL is away it is tried again, unless the delivery is no longer ours or we are to stop. Whatever the
  /// server answers is the function's failure, also if that has a code of ours: `dblink`, say, cannot connect with 08001.
  private func body(for departure: Desk.Departure, _ database: DatabaseLoop) -> Result<RequestBody, HTTPFailure> {
    let name = departure.endpoint.transform ?? "-"
    var sessionsLost = 0
    while desk.dispatcher == departure.held.dispatcher, !desk.preparation.transforms.isShut, !end.isSet {
      let step = database.step { store throws(PostgresError) -> Result<RequestBody, HTTPFailure> in
        do throws(PostgresError) {
          return .success(RequestBody(try store.transformed(departure.held.key)))
        } catch {
          if error.kind == .connection {
            sessionsLost += 1
            // A server that goes away takes everybody's session; a function that ends its own must not be called for ever.
            guard sessionsLost >= Self.mostSessions else { throw error }
          }
          // It is stored with the delivery, and told in an event, which has a limit.
          let words = String(error.message.unicodeScalars.prefix(Self.longestError))
          return .failure(HTTPFailure(.invalidRequest, "the transform \(name) failed: \(words)"))
        }
      }
      switch step {
      case .done(let result): return result
      case .refused(let error): database.complain(error, about: "the database refuses to run transforms; trying again")
      case .unleased, .doubtful, .failed: break
      }
    }
    return .failure(HTTPFailure(.aborted, "given back before its body was made"))
  }
}
