import FlyingFox
import Foundation
import WebhookSignature

/// Turns HTTP requests into deliveries, and replies into HTTP responses.
struct DeliveryHTTPHandler: HTTPHandler {
  var verifier: WebhookVerifier?
  var now: @Sendable () -> Date
  var bodyLimitBytes: Int
  var port: ListeningPort
  var handler: @Sendable (ReceivedDelivery) async -> Reply

  func handleRequest(_ request: HTTPRequest) async throws -> HTTPResponse {
    switch request.method {
    case .POST, .PUT: break
    case .GET: return Self.text(200, Self.about)
    // FlyingFox would send the body of an answer to HEAD, and the client take it for the next answer.
    case .HEAD: return HTTPResponse(statusCode: .ok)
    default: return response(from: Reply(status: 405, headers: ["Allow": "GET, HEAD, POST, PUT"]))
    }
    guard let body = try await readBody(of: request) else {
      return Self.text(413, "The body is larger than \(bodyLimitBytes) bytes.\n")
    }
    let reply = await handler(delivery(from: request, body: body))
    if reply.hangs {
      try await waitUntilClientGivesUp(request)
      return HTTPResponse(statusCode: .serviceUnavailable)
    }
    if reply.delay > .zero {
      try await Task.sleep(for: reply.delay)
    }
    return response(from: reply)
  }

  /// The body, or nil if it is larger than the limit.
  private func readBody(of request: HTTPRequest) async throws -> [UInt8]? {
    var body: [UInt8] = []
    var byteCount = 0
    if request.bodySequence.count != 0 {
      for try await chunk in request.bodySequence {
        byteCount += chunk.count
        // Read on, keeping nothing: FlyingFox cannot close a connection from here, and would take what is left of the
        // body for the next request.
        if byteCount <= bodyLimitBytes { body.append(contentsOf: chunk) } else { body = [] }
      }
    }
    if let announced = request.bodySequence.count, announced != byteCount {
      throw SocketClosed()
    }
    return byteCount <= bodyLimitBytes ? body : nil
  }

  /// The client closed the connection before its body was complete. Nobody is left to be answered.
  private struct SocketClosed: Error {}

  private func delivery(from request: HTTPRequest, body: [UInt8]) -> ReceivedDelivery {
    let date = now()
    var delivery = ReceivedDelivery(
      path: request.target.rawValue,
      webhookID: request.headers[HTTPHeader(WebhookHeader.id)],
      timestamp: request.headers[HTTPHeader(WebhookHeader.timestamp)].flatMap { Int($0) },
      headers: request.headers.map { (name: $0.key.rawValue, value: $0.value) },
      body: body,
      verification: .unsigned,
      receivedAt: .now,
      receivedAtDate: date
    )
    delivery.verification = verification(
      of: delivery,
      isSigned: request.headers[HTTPHeader(WebhookHeader.signature)] != nil
    )
    return delivery
  }

  private func verification(of delivery: ReceivedDelivery, isSigned: Bool) -> ReceivedDelivery.Verification {
    guard isSigned else { return .unsigned }
    guard let verifier else { return .unchecked }
    do {
      try verifier.verify(headers: delivery.headers, body: delivery.body, now: delivery.receivedAtDate)
      return .verified
    } catch {
      return .invalid(reason: error.description)
    }
  }

  private func waitUntilClientGivesUp(_ request: HTTPRequest) async throws {
    if let connection = ClientConnection(client: request.remoteAddress, serverPort: try await port.value) {
      try await connection.waitUntilClosed()
    } else {
      try await Task.sleep(for: .seconds(3600))
    }
  }

  private func response(from reply: Reply) -> HTTPResponse {
    let status = (200...599).contains(reply.status) ? reply.status : 500
    var headers = HTTPHeaders()
    for (name, value) in reply.headers { headers[HTTPHeader(name)] = value }
    return HTTPResponse(
      statusCode: HTTPStatusCode(status, phrase: StatusPhrase.of(status)),
      headers: headers,
      body: Data(reply.body.utf8)
    )
  }

  private static func text(_ status: Int, _ text: String) -> HTTPResponse {
    HTTPResponse(
      statusCode: HTTPStatusCode(status, phrase: StatusPhrase.of(status)),
      headers: [.contentType: "text/plain; charset=utf-8"],
      body: Data(text.utf8)
    )
  }

  private static let about = """
    This is a Martlet receiver. It takes webhooks by POST, on any path, checks their signatures and logs them.
    Point an endpoint at this address to see what arrives.

    """
}
