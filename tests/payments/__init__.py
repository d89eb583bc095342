"""Orders, webhooks, refunds, codes and receipts."""
