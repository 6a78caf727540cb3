import HTTPDelivery
import OutboxStore

extension HTTPRequest {
  /// The request of one attempt, signed now.
  /// - Parameters:
  ///   - transformed: what the endpoint's transform made of the event, if it has one.
  ///   - token: its OAuth 2 access token, if it needs one.
  init(_ departure: Desk.Departure, body transformed: RequestBody? = nil, token: String? = nil) {
    let (event, endpoint) = (departure.held.event, departure.endpoint)
    let body = transformed ?? endpoint.format.body(for: event)
    let id = event.id.lowercased
    let timestamp = departure.timestamp
    var headers = endpoint.headerLines
    headers.append("webhook-id: \(id)")
    headers.append("webhook-timestamp: \(timestamp)")
    let signer = endpoint.signer(at: timestamp)
    headers.append("webhook-signature: \(signer.signature(id: id, timestamp: timestamp, body: body.bytes))")
    endpoint.format.addHeaderLines(for: event, to: &headers)
    if let token { headers.append("Authorization: Bearer \(token)") }
    if let traceparent = event.traceparent, TraceContext.isTraceparent(traceparent) {
      headers.append("traceparent: \(traceparent)")
      if let tracestate = event.tracestate, TraceContext.isTracestate(tracestate) {
        headers.append("tracestate: \(tracestate)")
      }
    }
    self.init(
      tag: departure.tag,
      url: endpoint.url,
      headers: headers,
      body: body,
      timeout: endpoint.timeout,
      clientIdentity: endpoint.clientIdentity
    )
  }
}

/// W3C Trace Context (https://www.w3.org/TR/trace-context/). What is not of its form is not passed on: receivers would
/// start a trace of their own, which is also what they do without the header.
package enum TraceContext {
  /// `version-trace_id-parent_id-flags`, in lower-case hexadecimal; ids of zeros and version ff are invalid.
  package static func isTraceparent(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    guard bytes.count == 55 else { return false }
    for (index, byte) in bytes.enumerated() {
      switch index {
      case 2, 35, 52: guard byte == UInt8(ascii: "-") else { return false }
      default: guard (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte) else { return false }
      }
    }
    let zero = UInt8(ascii: "0")
    return !text.hasPrefix("ff") && bytes[3..<35].contains { $0 != zero } && bytes[36..<52].contains { $0 != zero }
  }

  /// Up to 512 printable characters; what they mean is between the vendors.
  package static func isTracestate(_ text: String) -> Bool {
    (1...512).contains(text.utf8.count) && text.utf8.allSatisfy { (0x20...0x7E).contains($0) }
      && text.utf8.contains { $0 != 0x20 }
  }
}
