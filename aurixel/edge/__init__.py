"""HTTP in, on Tornado: shapes, limits and connections only. What a request means is the gateway's business."""
