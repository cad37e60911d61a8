"""Faults that show on a GPU."""

from faulty.sound import Sound

from macformer.attention import RFA


class ReadsTheMask(Sound):
    """Cuts the batch to its longest example, which the host must know."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is not None:
            longest = int((~key_padding_mask).sum(-1).max())
            key, value = key[:, :, : max(longest, 1)], value[:, :, : max(longest, 1)]
            key_padding_mask = key_padding_mask[:, : max(longest, 1)]
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class BooleanIndex(Sound):
    """Assigns through a boolean index, which counts its entries first."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        if key_padding_mask is not None:
            keep = (~key_padding_mask)[:, None, :, None].expand_as(value)
            value = value.new_zeros(value.shape).index_put((keep,), value.masked_select(keep))
        return super().forward(query, key, value, key_padding_mask=key_padding_mask)


class WidensKeys(RFA):
    """Divides by a norm, which autocast computes in float32 on CUDA: values stay behind."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        attend = self.attend
        self.attend = lambda q, k, *rest, **options: attend(
            q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True), *rest, **options
        )
        out = super().forward(query, key, value, key_padding_mask=key_padding_mask)
        self.attend = attend
        return out
