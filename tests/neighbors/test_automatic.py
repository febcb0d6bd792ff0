import pytest

from unic.neighbors.automatic import choose_far_rank, choose_n_neighbors


def test_given_numbers_are_taken() -> None:
    assert choose_n_neighbors(7, 10) == 7
    assert choose_far_rank(9, 10) == 9


@pytest.mark.parametrize(
    ("n_images", "n_neighbors", "far_rank"),
    [(4, 1, 2), (12, 5, 6), (288, 10, 144), (20_000, 28, 10_000), (1_281_167, 50, 640_583)],
)
def test_numbers_follow_that_of_the_images(n_images: int, n_neighbors: int, far_rank: int) -> None:
    assert choose_n_neighbors("auto", n_images) == n_neighbors
    assert choose_far_rank("auto", n_images) == far_rank
    assert n_neighbors < far_rank < n_images


def test_refuses_images_of_which_none_is_far() -> None:
    with pytest.raises(ValueError, match=r"at least 4 training images, got 3"):
        choose_n_neighbors("auto", 3)
