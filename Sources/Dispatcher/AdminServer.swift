import FlyingFox
import Foundation
import Logging
import ServiceLifecycle

/// A small HTTP server for whoever watches a dispatcher: `GET /health` and `GET /metrics`.
///
/// `/health` answers 200 while the dispatcher holds a valid lease, else 503: it cannot reach the database, or has been taken
/// over. `/metrics` is in Prometheus' text format
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>), without labels.
package struct AdminServer: Service {
  private let host: String
  private let port: UInt16
  private let status: @Sendable () -> DispatcherStatus

  package init(host: String, port: UInt16, status: @escaping @Sendable () -> DispatcherStatus) {
    self.host = host
    self.port = port
    self.status = status
  }

  package func run() async throws {
    let server: HTTPServer
    do {
      server = HTTPServer(address: try .inet(ip4: host, port: port), logger: .disabled)
    } catch {
      throw AdminServerError(host: host, port: port, cause: error)
    }
    await server.appendRoute("GET /health") { [status] _ in
      let isLeased = status().isLeased
      return HTTPResponse(
        statusCode: isLeased ? .ok : .serviceUnavailable,
        headers: [.contentType: "text/plain"],
        body: Data((isLeased ? "ok\n" : "no lease\n").utf8)
      )
    }
    await server.appendRoute("GET /metrics") { [status] _ in
      HTTPResponse(
        statusCode: .ok,
        headers: [.contentType: "text/plain; version=0.0.4"],
        body: Data(status().prometheusText.utf8)
      )
    }
    try await cancelWhenGracefulShutdown {
      do {
        try await server.run()
      } catch is CancellationError {
      } catch  where !Task.isCancelled {
        throw AdminServerError(host: host, port: port, cause: error)
      }
    }
  }
}

package struct AdminServerError: Error, CustomStringConvertible {
  var host: String
  var port: UInt16
  var cause: any Error
  package var description: String {
    let reason =
      "\(cause)".contains("errno: 98")
      ? "the port is already in use" : "the address cannot be used (an IPv4 address of this host is needed)"
    return "The admin server cannot listen on \(host):\(port): \(reason). Choose another with --admin."
  }
}

/// What a dispatcher is doing now, and has done since it started.
package struct DispatcherStatus: Sendable {
  package var isLeased: Bool
  package var inFlight: Int
  package var queued: Int
  package var unrecorded: Int
  package var counters: DispatcherCounters

  var prometheusText: String {
    let gauges = [
      ("leased", isLeased ? 1 : 0, "1 while this dispatcher holds a valid lease"),
      ("in_flight", inFlight, "deliveries being sent"),
      ("queued", queued, "deliveries in memory that wait to be sent"),
      ("unrecorded", unrecorded, "outcomes that wait to be recorded"),
    ]
    let totals = [
      ("cuts", counters.cuts, "cuts of the log that found events"),
      ("events_cut", counters.eventsCut, "events taken from the log"),
      ("deliveries_parked", counters.parked, "deliveries that a cut put into outbox.delivery"),
      ("deliveries_claimed", counters.claimed, "deliveries claimed from outbox.delivery"),
      ("deliveries_delivered", counters.delivered, "deliveries answered 2xx and recorded"),
      ("deliveries_failed", counters.failed, "attempts that failed and were recorded"),
      ("deliveries_dead", counters.dead, "deliveries given up"),
      ("deliveries_returned", counters.returned, "deliveries handed back untried"),
      ("records", counters.records, "transactions that recorded outcomes"),
      ("dispatchers_recovered", counters.recovered, "dispatchers taken over"),
      ("leases_lost", counters.leasesLost, "times this dispatcher lost its lease"),
    ]
    func lines(_ name: String, _ value: Int, _ type: String, _ help: String) -> String {
      "# HELP martlet_\(name) \(help)\n# TYPE martlet_\(name) \(type)\nmartlet_\(name) \(value)\n"
    }
    return gauges.map { lines($0.0, $0.1, "gauge", $0.2) }.joined()
      + totals.map { lines("\($0.0)_total", $0.1, "counter", $0.2) }.joined()
  }
}
